"""Reward model of texts: planted utilities come back, length and category stay out of the quality, bytes and
versions."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.alignment.text_reward_model import RIDGES, TextRewardModel
from taiji.core.errors import ArtifactError, InputError
from taiji.language.embed import load_embedder
from taiji.nn.bradley_terry import preferred
from taiji.world import grammar

TITLES = [
    f"{words[a]} {words[b]} {kind}"
    for words in grammar.TOPICS
    for a, b in ((0, 1), (2, 3), (4, 5))
    for kind in ("lamp", "bag")
]
"""48 titles of the world's grammar."""


def planted(items: int, seed: int) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Copies of items in every style and 16 wordings: texts, categories, items (N,), utilities (N,)."""
    rng = np.random.default_rng(seed)
    styles, wordings = np.divmod(np.arange(6 * 16), 16)
    wordings = wordings * 4 + wordings % 4
    opened, closed, style = rng.normal(size=8), rng.normal(size=8), 0.7 * rng.normal(size=6)
    texts, names, of, utility = [], [], [], []
    for item, title in enumerate(TITLES[:items]):
        texts += grammar.worded(grammar.copies(styles, [title] * len(styles)), wordings)
        names += [list(grammar.STYLES)[s] for s in styles]
        of += [item] * len(styles)
        utility += (opened[wordings // 8] + closed[wordings % 8] + style[styles]).tolist()
    return texts, names, np.array(of), np.array(utility)


def drawn_pairs(of: np.ndarray, utility: np.ndarray, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of copies of the same item, each won with the law's probability."""
    rng, count = np.random.default_rng(seed), len(of) // (of.max() + 1)
    first = rng.integers(0, len(of), pairs)
    second = of[first] * count + rng.integers(0, count, pairs)
    first, second = first[first != second], second[first != second]
    won = rng.random(len(first)) < preferred(utility[first] - utility[second])
    return np.where(won, first, second), np.where(won, second, first)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(*(np.argsort(np.argsort(x)) for x in (a, b)))[0, 1])


@pytest.fixture(scope="module")
def embedder():
    return load_embedder("wordllama")


@pytest.fixture(scope="module")
def fitted(embedder):
    texts, names, of, utility = planted(12, 0)
    winners, losers = drawn_pairs(of, utility, 1500, 1)
    model = TextRewardModel(embedder).fit(texts, names, winners, losers, of[winners].astype(str))
    return model, texts, names, of, utility


@pytest.mark.slow
def test_ten_thousand_pairs_recover_the_utilities_of_copies_of_other_items(embedder):
    texts, names, of, utility = planted(48, 3)
    old = of < 36
    winners, losers = drawn_pairs(of[old], utility[old], 10_000, 4)
    model = TextRewardModel(embedder).fit(
        texts[: old.sum()], names[: old.sum()], winners, losers, of[winners].astype(str)
    )
    assert spearman(model.scores(texts, names).total[~old], utility[~old]) >= 0.9


def test_planted_utilities_come_back(fitted):
    model, texts, names, _, utility = fitted
    assert spearman(model.scores(texts, names).total, utility) > 0.9


def test_quality_has_mean_zero_in_every_category_and_does_not_go_with_length(fitted):
    model, texts, names, _, _ = fitted
    scores, length = model.scores(texts, names), np.log1p([len(text.split()) for text in texts])
    for name in model.categories:
        inside = np.array(names) == name
        assert scores.quality[inside].mean() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(scores.quality, length)[0, 1] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(scores.total, scores.quality + scores.prior + scores.length)


def test_where_only_length_or_category_decides_the_quality_says_nothing(embedder):
    texts, names, of, _ = planted(6, 5)
    rng = np.random.default_rng(6)
    styles = np.array([list(grammar.STYLES).index(name) for name in names])
    words = np.array([len(text.split()) for text in texts])
    for utility, part in ((2.0 * (styles == 1), "prior"), (2.0 * np.log1p(words), "length")):
        winners, losers = drawn_pairs(of, utility, 600, int(rng.integers(100)))
        scores = (
            TextRewardModel(embedder).fit(texts, names, winners, losers, of[winners].astype(str)).scores(texts, names)
        )
        assert getattr(scores, part).std() > 2 * scores.quality.std()


def test_a_model_is_saved_and_loaded_to_the_bit(fitted, embedder, tmp_path, monkeypatch):
    model, texts, names, _, _ = fitted
    model.save(tmp_path / "a")
    model.save(tmp_path / "b")
    assert (tmp_path / "a/text_reward.safetensors").read_bytes() == (
        tmp_path / "b/text_reward.safetensors"
    ).read_bytes()
    again = TextRewardModel.load(tmp_path / "a", embedder)
    np.testing.assert_array_equal(again.scores(texts, names).total, model.scores(texts, names).total)
    assert again.version == model.version and again.ridge in RIDGES
    other = type("Other", (), {"version": "other", "encode": embedder.encode, "name": "x", "dimension": 256})()
    with pytest.raises(ArtifactError, match="its embedder differs"):
        TextRewardModel.load(tmp_path / "a", other)
    monkeypatch.setattr("taiji.alignment.text_reward_model.STYLE_FEATURES", ("shouting",))
    with pytest.raises(ArtifactError, match="its style features differ") as error:
        TextRewardModel.load(tmp_path / "a", embedder)
    assert error.value.found == "shouting"


def test_an_unknown_category_has_no_prior_and_no_pairs_are_an_error(fitted, embedder):
    model = fitted[0]
    scores = model.scores(["New: Alpine Trail lamp"], ["never seen"])
    assert scores.prior == [0.0] and np.isfinite(scores.quality).all()
    with pytest.raises(InputError, match="no pairs"):
        TextRewardModel(embedder).fit(["a"], ["x"], np.array([]), np.array([]), [])
