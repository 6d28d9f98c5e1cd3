"""A small shop with known texts, and a tiny LM whose tokenizer knows its words."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.data.examples import next_sets
from taiji.data.schema import Tables
from taiji.language.causal_lm import LanguageModel
from taiji.language.tiny import CORPUS, tiny_causal_lm, tiny_tokenizer
from taiji.reasoning.settings import PromptSettings

START = datetime(2025, 1, 1)
L1 = ("Garden", "Kitchen", "Sports")


def build(
    domain: str = "shop",
    users: int = 6,
    items: int = 30,
    events: int = 12,
    extra: pl.DataFrame | None = None,
    mark: str = "",
) -> Dataset:
    """User u takes events items, one a day; every title is one of a kind (``item7word thing7``)."""
    catalogue = pl.DataFrame(
        {
            "item_id": range(items),
            "title": [f"item{i}word thing{i}{mark} (20{i % 90 + 10})" for i in range(items)],
            "category_l1": [L1[i % 3] for i in range(items)],
            "category_l2": [f"{L1[i % 3]} sort{i % 6}" if i % 5 else None for i in range(items)],
            "category_l3": [f"{L1[i % 3]} sort{i % 6} kind{i % 12}" if i % 5 else None for i in range(items)],
            "price": [None if i % 4 == 0 else 1.0 + i for i in range(items)],
        }
    )
    people = pl.DataFrame(
        {"user_id": range(users), "age": [None if u % 2 else f"{20 + u}-{29 + u}" for u in range(users)]}
    )
    rows = [
        (u, (u * 5 + 7 * e) % items, START + timedelta(days=e, hours=u), 1) for u in range(users) for e in range(events)
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "click"], orient="row")
    if extra is not None:
        log = pl.concat([log, extra.select(log.columns).cast(log.schema)])
    return Dataset.from_tables(Tables(catalogue, people, log, "test", domain))


def examples_of(dataset: Dataset, place: int = -1) -> pl.DataFrame:
    """Each user's interaction at ``place`` as the target."""
    history, rows = dataset.history, []
    for user in range(dataset.n_users):
        at = history.offsets[user + 1] + place if place < 0 else history.offsets[user] + place
        rows.append((f"e{user}", user, int(history.times[at]), int(history.items[at])))
    return pl.DataFrame(
        rows, schema={"example": pl.String, "user": pl.UInt32, "as_of": pl.Int64, "target": pl.UInt32}, orient="row"
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return build()


@pytest.fixture(scope="session")
def examples(dataset) -> pl.DataFrame:
    return examples_of(dataset)


@pytest.fixture(scope="session")
def set_examples(dataset) -> pl.DataFrame:
    """Each user's interaction five from the end, and the next items from there on."""
    rows = examples_of(dataset, -5)
    return rows.with_columns(next_sets(dataset, rows, [2**62] * len(rows), 4))


@pytest.fixture(scope="session")
def set_prompts() -> PromptSettings:
    return PromptSettings(token_budget=1200, answer="set", intents=3, next_items=4)


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    words = [f"item{i}word thing{i} sort{i % 6} kind{i % 12}" for i in range(30)]
    return LanguageModel(*tiny_causal_lm(tiny_tokenizer([*CORPUS, *words, *L1], vocabulary=700)), "tiny")


@pytest.fixture(scope="session")
def prompts() -> PromptSettings:
    return PromptSettings(token_budget=900)
