"""The benchmark of item codings, in small."""

import numpy as np
import pytest
from benchmarks.components.item_codes import coders, drawn, effect, exact, found
from benchmarks.harness import Result

from taiji.models.codes.quality import collisions_by_item


def test_codings_have_equal_bits():
    for bits in (3, 8):
        for name, coder in coders(bits, quick=True).items():
            if name in ("product", "residual k-means", "k-means and grid"):
                rows = np.random.default_rng(0).normal(size=(400, 12))
                assert coder.fit(rows).sizes == (2**bits,) * 3


def test_the_effect_has_a_row_per_coding_and_seed():
    result, catalogue = Result(), drawn(0, 1.2, 60)
    effect(
        result,
        catalogue,
        lambda catalogue, codes, seed: collisions_by_item(codes.table),
        bits=3,
        seeds=2,
    )
    assert [row["coding"] for row in result.rows] == 2 * ["product", "residual k-means", "k-means and grid"]
    assert all(0 <= row["hit rate"] <= 1 and row["bits"] == 9 for row in result.rows)


def test_skewed_catalogues_collide_more():
    coder = coders(3)["residual k-means"]
    skewed, even = (
        [f["collisions by item"] for f in found(c, coder, c.vectors, 2)]
        for c in (drawn(0, 2.0, 150), drawn(0, 0.0, 150))
    )
    assert np.mean(skewed) > np.mean(even)


@pytest.mark.slow
def test_quick_run(monkeypatch):
    monkeypatch.delenv("TAIJI_TEST_DATA", raising=False)
    result = Result()
    exact(result, quick=True)
    assert len(result.rows) == 12
