"""A small shop on disk and a tiny language model, so that the real loop runs through in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import write_config, write_model, write_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def small_config(shop, model_folder, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "small.yaml", shop, model_folder)
