from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.errors import ConfigError, InputError
from taiji.core.settings import Settings
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.semantic_anchors import SemanticAnchorsRanker
from taiji.models.ranking.training_loop import Step
from taiji.testing import check_component, check_learns_checkerboard, check_scorer, checkerboard, exposures_of
from taiji.testing.datasets import requests_of
from taiji.core.component import Slate

BOARD = checkerboard()
SETTINGS = SemanticAnchorsRanker.Settings(
    hidden=(16,), history=5, text_width=8, text_layers=1, experts=2, tokens=6, device="cpu", min_steps=60
)


class Calls:
    """Counts what an encoder is asked for."""

    def __init__(self, ranker):
        self.texts = 0
        self.handle = ranker.network.encoder.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        self.texts += len(output)


@pytest.fixture(scope="module")
def fitted():
    return SemanticAnchorsRanker(SETTINGS).fit(BOARD, exposures_of(BOARD), seed=0)


def test_it_keeps_the_contract_and_learns(fitted):
    check_scorer(fitted, BOARD)
    check_learns_checkerboard(fitted, BOARD)
    rows = exposures_of(BOARD).head(20)
    check_component(fitted, BOARD, lambda r: r.predict(rows)["click"].to_numpy())


def test_the_request_side_is_computed_once(fitted):
    assert fitted.encode(requests_of(BOARD)).split is not None
