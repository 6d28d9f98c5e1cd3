"""Nothing at or after an `as_of` is read: events planted there change no prompt, no reward, no feature and no score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taiji.alignment import build_reward_table
from taiji.alignment.settings import RewardTableSettings
from taiji.data import Dataset, ExampleSettings, Tables, exposures, load_source, make_examples, time_split
from taiji.data.examples import next_sets
from taiji.features.feature_table import build_table
from taiji.features.history_mean import history_mean
from taiji.language.embed import load_embedder
from taiji.language.tiny import tiny_tokenizer
from taiji.metrics.baselines import baselines
from taiji.models.codes.product import ProductQuantizer
from taiji.models.ranking import Ranker, train_ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.pipeline.refreshes import refresh_times
from taiji.reasoning.prompts import item_lines, student_prompts, true_answers
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.settings import PromptSettings

CUT = 0.8
"""Share of the log's time after which events are planted."""


class World:
    """The small shop, and everything the loop makes from it before the cut."""

    def __init__(self, tables: Tables, dataset: Dataset) -> None:
        self.tables, self.dataset = tables, dataset
        self.split = time_split(dataset, (0.3, 0.25, 0.25, 0.2))
        self.cut = self.split.interval("test")[0]
        self.embedder = load_embedder("wordllama")
        self.vectors = self.embedder.encode(item_lines(dataset))
        self.tokenizer = tiny_tokenizer()
        self.settings = RankerSettings(epochs=1, history=10, hidden=(8,))
        self.ranker = train_ranker(dataset, exposures(dataset, self.split, "reward"), self.settings)
        self.examples = make_examples(dataset, self.split, "llm", ExampleSettings(min_history=3), 0)
        self.made = self.make(dataset)

    def make(self, dataset: Dataset) -> dict[str, object]:
        """Everything before the cut, from a dataset that may know more."""
        split, rows = self.split, refresh_times(dataset, self.split, 3, 2).filter(pl.col("as_of") <= self.cut)
        users, times = rows["user"].to_numpy(), rows["as_of"].to_numpy()
        mean = history_mean(dataset, users, times, self.vectors, 20)
        quantizer = ProductQuantizer.fit(mean, seed=0)
        ranker = self.ranker if dataset is self.dataset else self._bound(dataset)
        environment = build_reward_table(
            dataset, split, self.examples, ranker, self.embedder, RewardTableSettings(random_candidates=5), 0
        )
        judged = exposures(dataset, split, "ranker")
        ends = [split.interval("llm")[1]] * len(self.examples)
        sets = self.examples.with_columns(next_sets(dataset, self.examples, ends, 10))
        asked = PromptSettings(token_budget=1500, answer="set")
        of_sets = build_reward_table(
            dataset, split, sets, ranker, self.embedder, RewardTableSettings(random_candidates=5), 0
        )
        return {
            "sets": sets,
            "prompts of sets": student_prompts(dataset, sets, asked, self.tokenizer),
            "rationales of sets": RuleWriter(asked).write(dataset, sets, 2, 0),
            "taught sets": pl.DataFrame({"answers": true_answers(dataset, sets, asked, 2, asked.most)}),
            "reward table of sets": of_sets.rows,
            "examples": make_examples(dataset, split, "llm", ExampleSettings(min_history=3), 0),
            "prompts": student_prompts(dataset, self.examples, PromptSettings(token_budget=1500), self.tokenizer),
            "environment": environment.rows,
            "features": build_table(dataset, rows, mean, quantizer),
            "exposures": judged.drop("event"),
            "scores": ranker.predict(judged).drop("event"),
            "retrained": train_ranker(dataset, exposures(dataset, split, "reward"), self.settings)
            .predict(judged)
            .drop("event"),
            "baselines": str(baselines(dataset, self.examples)),
        }

    def _bound(self, dataset: Dataset) -> Ranker:
        ranker = type(self.ranker)(self.settings).build(dataset, self.ranker.fieldset, self.ranker.tasks)
        ranker.network.load_state_dict(self.ranker.network.state_dict())
        ranker.calibration = self.ranker.calibration
        return ranker


@pytest.fixture(scope="module")
def world(shop) -> World:
    tables = load_source(str(shop))
    return World(tables, Dataset.from_tables(tables))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), number=st.integers(1, 400), offset=st.sampled_from([0, 1, 10**9]))
def test_planted_future_events_change_no_artefact(world, seed, number, offset):
    rng = np.random.default_rng(seed)
    ids = world.dataset.users["user_id"].to_list(), world.dataset.items["item_id"].to_list()
    times = world.cut + offset + rng.integers(0, 10**12, number)
    planted = pl.DataFrame(
        {
            "user_id": rng.choice(ids[0], number),
            "item_id": rng.choice(ids[1], number),
            "timestamp": pl.Series(times).cast(pl.Datetime("us")),
            "exposed": rng.random(number) < 0.8,
            "click": 1,
            "conversion": 1,
            "matured_at": pl.Series(times).cast(pl.Datetime("us")),
            "price": rng.uniform(1, 100, number),
        }
    ).cast(dict(world.tables.events.schema))
    more = pl.concat([world.tables.events, planted.select(world.tables.events.columns)])
    made = world.make(Dataset.from_tables(replace(world.tables, events=more)))
    for name, before in world.made.items():
        same = before.equals(made[name]) if isinstance(before, pl.DataFrame) else before == made[name]
        assert same, f"{name} read the future"
