from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.errors import ConfigError, InputError
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.ranking.code_sequence import CodeSequenceRanker, ItemCodesField
from taiji.testing import check_component, check_learns_checkerboard, check_scorer, checkerboard, exposures_of
from taiji.testing.datasets import requests_of

BOARD = checkerboard()
CODES = ItemCodes(np.stack([np.arange(20) % 2, np.arange(20) // 2 % 5, np.arange(20) // 10], axis=1), (2, 5, 2), "v1")
SETTINGS = CodeSequenceRanker.Settings(hidden=(16,), history=20, found=5, attended=8, device="cpu", min_steps=60)


@pytest.fixture(scope="module")
def fitted():
    coded = CODES.on(BOARD)
    return CodeSequenceRanker(SETTINGS).fit(coded, exposures_of(coded), seed=0), coded


def test_it_keeps_the_contract_and_learns(fitted):
    ranker, coded = fitted
    check_scorer(ranker, coded)
    check_learns_checkerboard(ranker, coded)
    rows = exposures_of(coded).head(20)
    check_component(ranker, coded, lambda r: r.predict(rows)["click"].to_numpy())


def test_the_request_side_is_computed_once(fitted):
    ranker, coded = fitted
    assert ranker.encode(requests_of(coded)).split is not None


def test_a_history_of_other_buckets_does_not_count(fitted):
    """With found entries of the candidate's first code alone, replacing all others changes nothing."""
    ranker, coded = fitted
    rows = exposures_of(coded).tail(30)
    batch = ranker.inputs.batch(ranker.inputs.arrays(rows), np.arange(30))
    network = ranker.network.eval()
    first = batch["items"][:, -3]
    item, sequence = batch["item"], batch["history"]
    per = item.view(sequence.shape[0], -1)
    with torch.no_grad():
        before = network(batch)
        other = (sequence != 0) & (first[sequence].unsqueeze(1) != first[per].unsqueeze(2)).all(dim=1)
        after = network({**batch, "history": torch.where(other, 0, sequence)})
    torch.testing.assert_close(before, after)
    assert other.any()


def test_items_without_codes_are_said():
    with pytest.raises(ConfigError, match="code_1"):
        CodeSequenceRanker(SETTINGS).fit(BOARD, exposures_of(BOARD), seed=0)


def test_codes_of_another_version_are_rejected(fitted):
    coded = fitted[1]
    other = replace(CODES, version="v2").on(BOARD)
    field = ItemCodesField(SETTINGS.codes)
    field.fit(coded, exposures_of(coded), 0)
    assert field.codes(coded, coded.items).shape == (20, 3)
    with pytest.raises(InputError):
        field.codes(other, other.items)
    mixed = replace(coded, items=coded.items.with_columns(code_version=pl.Series(["v1"] * 19 + ["v2"])))
    with pytest.raises(InputError):
        field.codes(mixed, mixed.items)
