"""Rows of intents in the stage: a map of their space, a student of them, and the ranking that reads both."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tests.reasoning.conftest import build

from taiji.config import load_config
from taiji.core.artifacts import write_json
from taiji.core.manifests import MANIFEST
from taiji.data.examples import next_sets
from taiji.data.item_text import item_texts
from taiji.features.intent_map import IntentMap
from taiji.features.student import IntentStudent
from taiji.language.embed import load_embedder
from taiji.pipeline import completions, run_models, run_rankers
from taiji.pipeline.engine import Context
from taiji.pipeline.stages.features_stage import Features
from taiji.pipeline.stages.ranking_stage import Ranking

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def shop():
    return build(users=24)


@pytest.fixture
def run(shop, tmp_path, monkeypatch):
    """A run whose model names, of each user, the item taken last and the one two numbers on."""
    start = int(shop.events["time"].min())
    bounds = [start, start + 3 * DAY, start + 6 * DAY, start + 9 * DAY, start + 14 * DAY]
    shop.save(tmp_path / "data" / "dataset")
    as_of = np.full(24, start + 5 * DAY)
    targets = shop.history.after_batch(np.arange(24), as_of, 1)[0][:, 0]
    examples = pl.DataFrame({"user": np.arange(24), "as_of": as_of, "target": targets}).with_columns(
        example=pl.format("e{}", "user"), role=pl.lit("alignment"), user=pl.col("user").cast(pl.UInt32)
    )
    (tmp_path / "examples").mkdir()
    sets = next_sets(shop, examples, [start + 9 * DAY] * 24, 3)
    examples.with_columns(sets).write_parquet(tmp_path / "examples" / "examples.parquet")
    write_json(tmp_path / "examples" / "split.json", {"bounds": bounds})
    texts, embedder = item_texts(shop), load_embedder("wordllama")

    def complete_sets(context, rows, which, what=""):
        items, _ = shop.history.before_batch(rows["user"].to_numpy(), rows["as_of"].to_numpy(), 1)
        named = [[texts[item], texts[(item + 2) % shop.n_items]] for item in items[:, 0]]
        return rows.select("example", "user", "as_of").with_columns(
            completion=pl.lit("t</think><answer>Item title: a; Category L1: Garden</answer>"),
            cut=pl.lit(False),
            intent_texts=pl.Series(named),
            intent_levels=pl.Series([[["Garden"], ["Kitchen"]]] * len(rows)),
            intent_weights=pl.Series([[0.6, 0.3]] * len(rows)),
        )

    monkeypatch.setattr(completions, "complete_sets", complete_sets)
    monkeypatch.setattr(completions, "embed", lambda context, texts, what: embedder.encode(texts))
    monkeypatch.setattr(run_models, "load_model", lambda context, which: SimpleNamespace(version="m"))

    def made(*overrides):
        folder = tmp_path / "features"
        folder.mkdir(exist_ok=True)
        asked = ("reasoning.prompts.answer=set", "embedder.name=wordllama", "examples.min_history=2")
        config = load_config(overrides=[*asked, *overrides])
        context = Context(config, folder, tmp_path / "scratch", tmp_path, ("data", "examples", "alignment"))
        Features().run(context)
        write_json(folder / MANIFEST, {})
        return context

    return made


def test_by_default_rows_are_in_the_embedders_own_space(run):
    context = run()
    table = pl.read_parquet(context.folder / "taiji.parquet")
    assert set(table["intent_embedder"]) == {f"wordllama@{load_embedder('wordllama').version}"}
    assert not (context.folder / "student").exists() and not (context.folder / "intent-map").exists()


def test_the_map_is_fitted_on_the_language_models_period_and_named_in_the_rows(run):
    plain = pl.read_parquet(run().folder / "taiji.parquet")
    context = run("features.align_intents=true")
    moved = IntentMap.load(context.folder / "intent-map")
    table = pl.read_parquet(context.folder / "taiji.parquet")
    assert moved.facts["rows"] == 24
    assert set(table["intent_embedder"]) == {moved.named(plain["intent_embedder"][0])}
    assert table["intents"].equals(plain["intents"]) == moved.is_identity
    assert table["intent_weights"].equals(plain["intent_weights"])


def test_the_student_learns_from_rows_before_the_test_and_fills_the_gaps_of_the_ranking(run, shop, monkeypatch):
    context = run("features.student=true", "size.feature_users=20", "ranking.pair_fields=[intents]")
    student = IntentStudent.load(context.folder / "student")
    table = pl.read_parquet(context.folder / "taiji.parquet")
    test = int(shop.events["time"].min()) + 9 * DAY
    assert student.facts["rows"] == len(table.filter(pl.col("available_at") < test)) < len(table)
    seen = {}

    class Kept:
        def predict(self, rows):
            seen.setdefault("predicted", []).append(rows)
            return rows.select("user")

    def train(context, dataset, rows, arm, like):
        seen[arm] = rows
        return Kept()

    monkeypatch.setattr(run_rankers, "train", train)
    monkeypatch.setattr(run_rankers, "load_trained", lambda *given: Kept())
    needs = ("data", "examples", "evaluation_ranker", "features")
    folder = context.run / "ranking"
    folder.mkdir()
    Ranking().run(Context(context.config, folder, context.scratch, context.run, needs))
    trained, tested = seen["taiji"], seen["predicted"][-1]
    assert "intents" not in seen["history_mean"].columns
    known = shop.history.count_before(trained["user"].to_numpy(), trained["time"].to_numpy()) > 0
    assert trained["intent_weights"].is_not_null().to_list() == known.tolist(), "everybody with a history has intents"
    assert trained["feature_as_of"].null_count() > 0 and tested["intent_weights"].null_count() == 0
