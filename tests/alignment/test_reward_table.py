"""RewardTable and rewards with a hand-made log, a transparent ranker and a transparent embedder."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.alignment.reward_table import RewardTable, build_reward_table, min_max
from taiji.alignment.rewards import Answers, for_trl, ground_rollouts, preference_reward, semantic_reward
from taiji.alignment.settings import RewardTableSettings
from taiji.core.errors import TaijiError
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.data.splits import Split
from taiji.reasoning.answers import format_completion
from taiji.reasoning.prompts import item_line

SETTINGS = RewardTableSettings(popular_candidates=3, random_candidates=4, exposed_candidates=5)
DAY = timedelta(days=1)
START = datetime(2020, 1, 1)


class Letters:
    """Bag of letters, unit length: nearness can be checked by hand."""

    version = "letters-1"

    def encode(self, texts):
        counts = np.array(
            [[text.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz0123456789"] for text in texts],
            dtype=np.float32,
        ).reshape(len(texts), -1)
        length = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.divide(counts, length, out=np.zeros_like(counts), where=length > 0)


class Known:
    """Score = item / 100 + user / 1000, and it remembers the times it was asked for."""

    def score_pairs(self, users, items, times):
        self.as_ofs = times
        return items / 100 + users / 1000


def make_dataset(extra=()):
    items = pl.DataFrame(
        {
            "item_id": list(range(20)),
            "title": [f"{chr(97 + i) * 6} thing {i}" for i in range(20)],
            "category_l1": ["A"] * 20,
            "category_l2": [None] * 20,
            "category_l3": [None] * 20,
            "price": [None] * 20,
        },
        schema_overrides={"category_l2": pl.String, "category_l3": pl.String, "price": pl.Float64},
    )
    users = pl.DataFrame({"user_id": [0, 1, 2]})
    rows = [
        (u, (3 * d + u) % 20, START + d * DAY, True, int(d % 2 == 0), None, START + (d + 1) * DAY, None)
        for d in range(20)
        for u in range(3)
    ] + list(extra)
    events = pl.DataFrame(
        rows,
        orient="row",
        schema={
            "user_id": pl.Int64,
            "item_id": pl.Int64,
            "timestamp": pl.Datetime("us"),
            "exposed": pl.Boolean,
            "click": pl.Int8,
            "conversion": pl.Int8,
            "matured_at": pl.Datetime("us"),
            "price": pl.Float64,
        },
    )
    return Dataset.from_tables(
        Tables(
            items=items,
            users=users,
            events=events.sort("timestamp", maintain_order=True),
            name="tiny",
            domain="shop",
            notes=(),
        )
    )


def micros(days):
    return int((START + days * DAY - datetime(1970, 1, 1)) / timedelta(microseconds=1))


SPLIT = Split((micros(0), micros(6), micros(12), micros(16), micros(30)))
EXAMPLES = pl.DataFrame(
    {"example": ["one", "two"], "user": [0, 1], "as_of": [micros(8), micros(10)], "target": [4, 11]},
    schema_overrides={"user": pl.UInt32, "target": pl.UInt32},
)


@pytest.fixture
def environment():
    return build_reward_table(make_dataset(), SPLIT, EXAMPLES, Known(), Letters(), SETTINGS, 0)


def test_candidates_are_target_shown_popular_and_random(environment):
    for number, (name, user, target) in enumerate((("one", 0, 4), ("two", 1, 11))):
        rows = environment.rows.filter(pl.col("example") == name)
        items = rows["item"].to_list()
        assert items == sorted(set(items)) and target in items
        shown = [(3 * d + user) % 20 for d in range(6, (8, 10)[number] + 1)][-5:]
        assert set(shown) <= set(items)
        assert np.allclose(rows["ctcvr"], rows["item"].to_numpy() / 100 + user / 1000)
        assert rows["reward"].min() == 0 and rows["reward"].max() == 1
    assert len(environment.rows.filter(pl.col("example") == "one")) <= 1 + 5 + 3 + 4


def test_future_events_change_nothing(environment):
    later = [
        (u, i, START + (10 + 1 + i) * DAY, True, 1, 1, START + 40 * DAY, None) for u in range(3) for i in range(19)
    ]
    changed = build_reward_table(make_dataset(later), SPLIT, EXAMPLES, Known(), Letters(), SETTINGS, 0)
    assert changed.rows.equals(environment.rows) and np.array_equal(changed.vectors, environment.vectors)


def test_an_examples_candidates_do_not_depend_on_the_others(environment):
    alone = build_reward_table(make_dataset(), SPLIT, EXAMPLES[1:], Known(), Letters(), SETTINGS, 0)
    assert alone.rows.equals(environment.rows.filter(pl.col("example") == "two"))
    other = build_reward_table(make_dataset(), SPLIT, EXAMPLES, Known(), Letters(), SETTINGS, 1)
    assert not other.rows.equals(environment.rows)


def test_grounding_is_exact_nearest_candidate(environment):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 36)).astype(np.float32)
    names = [("one", "two")[i % 2] for i in range(40)]
    found = environment.ground(names, vectors)
    table = dict(zip(environment.item_ids.tolist(), environment.vectors))
    for i, name in enumerate(names):
        rows = environment.rows.filter(pl.col("example") == name)
        cosines = [float(table[item] @ vectors[i]) for item in rows["item"]]
        best = int(np.argmax(cosines))
        assert found.items[i] == rows["item"][best]
        assert found.reward[i] == rows["reward"][best] and found.similarity[i] == pytest.approx(cosines[best], abs=1e-5)


def test_rewards(environment):
    dataset, answers = make_dataset(), Answers(Letters())
    semantic, preference = semantic_reward(environment, answers), preference_reward(environment, answers)
    texts = [format_completion("because", item_line(dataset, item)) for item in (4, 11)]
    assert semantic(["one", "two"], texts) == pytest.approx([1, 1], abs=1e-6)
    rows = environment.rows
    expected = [
        rows.filter((pl.col("example") == e) & (pl.col("item") == i))["reward"][0] for e, i in (("one", 4), ("two", 11))
    ]
    assert preference(["one", "two"], texts) == pytest.approx(expected)
    broken = ["", "no tags", "<answer></answer>", "<answer>" + "x" * 9000 + "</answer>", "<answer>Item title: a"]
    for reward in (semantic, preference):
        assert (reward(["one"] * 5, broken) == 0).all()
    well, grounded = ground_rollouts(environment, answers, ["one", "one"], [texts[0], "bad"])
    assert well.tolist() == [True, False] and grounded.items[0] == 4


def test_trl_adapter_turns_nan_into_none():
    function = for_trl("mine", lambda examples, completions: np.array([0.5, np.nan]))
    assert function.__name__ == "mine"
    assert function(
        prompts=["p"] * 2, completions=["a", [{"role": "assistant", "content": "b"}]], example=["x", "y"], other=1
    ) == [0.5, None]
    with pytest.raises(TaijiError, match="mine"):
        for_trl("mine", lambda e, c: np.zeros(3))(prompts=[], completions=["a"], example=["x"])


def test_save_and_load(environment, tmp_path):
    environment.save(tmp_path / "env")
    loaded = RewardTable.load(tmp_path / "env")
    assert loaded.rows.equals(environment.rows) and np.array_equal(loaded.vectors, environment.vectors)
    assert loaded.ground(["two"], loaded.target_vectors(["two"])).items[0] == 11
    environment.save(tmp_path / "again")
    assert all((tmp_path / "env" / f.name).read_bytes() == f.read_bytes() for f in (tmp_path / "again").iterdir())


def test_errors(environment):
    with pytest.raises(TaijiError, match="does not contain this example"):
        environment.ground(["three"], np.zeros((1, 36)))
    with pytest.raises(TaijiError, match="no examples"):
        build_reward_table(make_dataset(), SPLIT, EXAMPLES[:0], Known(), Letters(), SETTINGS, 0)
    other = Letters()
    other.version = "letters-2"
    with pytest.raises(TaijiError, match="a different embedder"):
        semantic_reward(environment, Answers(other))


def test_min_max_segments():
    assert min_max(np.array([1.0, 3.0, 2.0, 5.0, 5.0]), np.array([0, 3])).tolist() == [0, 1, 0.5, 0, 0]
