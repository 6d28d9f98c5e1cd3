"""Fixtures of the trainer's tests."""

from __future__ import annotations

from functools import partial

import pytest
from tests.alignment.jobs import build_job


@pytest.fixture
def job(tmp_path):
    """Build a trainer: ``job(cls, config_cls, rewards=…, model=…, peft_config=…, **config)``."""
    return partial(build_job, tmp_path)
