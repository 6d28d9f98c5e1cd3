"""The near-online writer says what the batch stage says: rows of intents, with the same weights and vectors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tests.reasoning.conftest import build

from taiji.config import Config, load_config
from taiji.core.artifacts import write_json
from taiji.data.intent_rows import INTENTS
from taiji.features.intents import intent_columns
from taiji.language.causal_lm import LanguageModel
from taiji.language.embed import load_embedder
from taiji.language.generate import Written
from taiji.language.tiny import tiny_causal_lm
from taiji.models.codes.product import ProductQuantizer
from taiji.pipeline import completions
from taiji.serving import feature_writer
from taiji.serving.feature_writer import RunWriter
from taiji.serving.live_dataset import World
from taiji.serving.types import UserHistory

SAID = [
    "a</think><answer>Item title: item1word; Category L1: Garden\nItem title: thing2; Category L1: Kitchen</answer>",
    "b</think><answer>Item title: thing3; Category L1: Sports\nItem title: cut he",
    "no answer at all",
]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A writer over a small shop, and the batch stage's work over the same one; what they say hangs on the prompt."""

    def writer(*overrides: str):
        config = load_config(overrides=["reasoning.prompts.token_budget=1500", *overrides])
        build().save(tmp_path / "data" / "dataset")
        write_json(tmp_path / "config.json", Config.model_dump(config, mode="json"))
        world, lm = World(tmp_path), LanguageModel(*tiny_causal_lm(), "tiny")
        embedder = load_embedder("wordllama")
        vectors = embedder.encode(["one", "two"])
        quantizer = ProductQuantizer.fit(vectors, config.features, 0)
        pool = (np.array([0, 1]), np.array([0, 0]), vectors)
        store = SimpleNamespace(suppressed=lambda names: [False] * len(names))
        context = SimpleNamespace(config=config)
        monkeypatch.setattr(completions, "stored", lambda context: world.dataset)
        monkeypatch.setattr(completions, "load_model", lambda context, which: lm)
        monkeypatch.setattr(completions, "with_engine", lambda lm, settings: lm)
        for module in (completions, feature_writer):
            monkeypatch.setattr(module, "write", said)
        return RunWriter(world, lm, embedder, quantizer, pool, store), context, embedder

    return writer


def said(lm, prompts, *, n=1, settings=None, seed=0):
    return [[Written(SAID[len(prompt) % 3], False)] * n for prompt in prompts]


def test_rows_of_intents_are_those_of_the_batch_stage(made):
    writer, context, embedder = made("reasoning.prompts.answer=set")
    as_of = 2**61
    rows = pl.DataFrame({"example": [str(user) for user in range(6)], "user": range(6), "as_of": [as_of] * 6})
    batch = completions._open_answering_sets(context, "aligned")(rows)
    flat = batch.filter(pl.col("intent_texts").list.len() > 0).explode(
        "intent_texts", "intent_levels", "intent_weights"
    )
    wanted = intent_columns(
        embedder.encode(flat["intent_texts"].to_list()),
        flat["intent_weights"].to_numpy(),
        flat["intent_levels"].to_list(),
        batch["intent_texts"].list.len().to_list(),
        8,
        f"{embedder.name}@{embedder.version}",
    )
    found = writer.write([UserHistory(str(user), as_of) for user in range(6)])
    told = [row.intents.columns() if row.intents else dict.fromkeys(INTENTS) for row in found]
    plain = pl.DataFrame([tuple(row[name] for name in INTENTS) for row in told], schema=INTENTS, orient="row")
    assert plain.equals(wanted) and 0 < plain["intents"].null_count() < 6
    assert writer.usage.prompt_tokens == batch["prompt_tokens"].sum()
    assert writer.usage.completion_tokens == batch["completion_tokens"].sum()


def test_rows_of_single_answers_have_no_intents(made):
    writer, _, _ = made()
    (row,) = writer.write([UserHistory("1", 2**61)])
    assert row.intents is None and b"intent" not in row.head()
