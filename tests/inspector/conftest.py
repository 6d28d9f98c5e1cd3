"""A small run made of what stages write, by hand: every kind of page has something to show, in no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.inspector.samples import write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "shown")


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "other", users=60)
    settings = json.loads((folder / "config.json").read_text())
    settings["alignment"]["weighting"] = "popo-light"
    (folder / "config.json").write_text(json.dumps(settings))
    return folder
