"""Default input fields of ranking models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.fields import (
    CategoryField,
    Field,
    IdField,
    NumberField,
    StatisticField,
    check_not_an_outcome,
    make_field,
)
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.statistics import NAMES
from taiji.models.ranking.paying_fields import Worth
from taiji.models.ranking.settings import NeuralRankerSettings

PAIR_FIELDS = {
    "collaborative": "taiji.models.ranking.pair_fields:CollaborativeMatch",
    "text_match": "taiji.models.ranking.pair_fields:TextMatch",
    "item_knowledge": "taiji.models.ranking.item_knowledge_match:ItemKnowledge",
    "intents": "taiji.models.ranking.intent_match:IntentMatch",
}
"""Import path of each built-in pair field, by its name in the settings."""
USUAL: tuple[dict[str, Any], ...] = (
    {"field": "collaborative", "least_rows": 20_000},
    {"field": "text_match", "least_rows": 20_000, "must_pay": True},
)
"""Pair fields used if the setting ``pair_fields`` is null."""
FEW_VALUES = 50
"""Number of distinct values above which a numeric profile column is always used, even if almost all users differ in
it."""


def default_fields(dataset: Dataset, columns: Sequence[str], settings: NeuralRankerSettings) -> list[Field]:
    """Return the input fields of a ranker, not yet fitted.

    These are ids, categories, profile, statistics, history, features (look-alike items, codes, vector), context, pair
    fields, and the fields listed in the setting ``fields``.

    Args:
        dataset: the tables.
        columns: columns of the training rows.
        settings: lengths of sequences, sizes of vocabularies, pair fields and further fields.
    """
    rare = (settings.min_count, settings.max_rows, settings.hashed_rows)
    made: list[Field] = [IdField("user", *rare), IdField("item", *rare)]
    made += [CategoryField(level, "item") for level in dataset.levels]
    made.append(CategoryField(profile_columns(dataset.users), "user", name="profile"))
    made += [StatisticField(name) for name in NAMES]
    made.append(SequenceField(settings.history))
    if "neighbour_items" in columns:
        made.append(SequenceField(settings.neighbour, "neighbour_items"))
    if "ids" in columns:
        made.append(CodesField("ids"))
    if "vector" in columns:
        made.append(VectorField("vector"))
    made += [context_field(dataset, column) for column in dataset.context if column in columns]
    made += pair_fields(USUAL if settings.pair_fields is None else settings.pair_fields)
    for place, given in enumerate(settings.fields):
        made.append(make_field(given, f"ranking.fields[{place}]"))
        check_not_an_outcome(made[-1], dataset, f"ranking.fields[{place}]")
    return made


def pair_fields(given: Sequence[str | dict[str, Any]]) -> list[Field]:
    """Return the fields that a setting lists, from :data:`PAIR_FIELDS` or :func:`taiji.data.fields.make_field`."""
    made = []
    for place, entry in enumerate(given):
        arguments = {"field": entry} if isinstance(entry, str) else dict(entry)
        name = str(arguments.get("field", ""))
        made.append(make_field({**arguments, "field": PAIR_FIELDS.get(name, name)}, f"ranking.pair_fields[{place}]"))
    return made


def must_pay(settings: object) -> bool:
    """Return True if a field in the settings is marked ``must_pay``, so that it has to lower the loss on later rows."""
    if not isinstance(settings, NeuralRankerSettings):
        return False
    given = (*(USUAL if settings.pair_fields is None else settings.pair_fields), *settings.fields)
    return any(isinstance(entry, dict) and entry.get("must_pay") is True for entry in given)


def settled(settings: NeuralRankerSettings, worths: Sequence[Worth]) -> NeuralRankerSettings:
    """Return settings without the fields that did not lower the loss enough.

    ``must_pay`` is removed from the remaining fields, so that all rankers of a comparison read the same fields.

    Args:
        settings: settings of a trained ranker.
        worths: measured worth of this ranker's fields, see :attr:`taiji.models.ranking.ranker.Ranker.worths`.
    """
    kept = without_fields(settings, {worth.field for worth in worths if not worth.pays})

    def plain(given: Sequence[str | dict[str, Any]]) -> tuple[str | dict[str, Any], ...]:
        return tuple(
            entry if isinstance(entry, str) else {key: value for key, value in entry.items() if key != "must_pay"}
            for entry in given
        )

    assert kept.pair_fields is not None
    return kept.model_copy(update={"pair_fields": plain(kept.pair_fields), "fields": plain(kept.fields)})


def without_fields(settings: NeuralRankerSettings, names: Collection[str]) -> NeuralRankerSettings:
    """Return settings without the named fields. If ``pair_fields`` is null, it is first replaced by :data:`USUAL`."""
    pairs, others = _entries(settings)
    return settings.model_copy(
        update={
            "pair_fields": tuple(entry for name, entry in pairs if name not in names),
            "fields": tuple(entry for name, entry in others if name not in names),
        }
    )


def listed_fields(settings: NeuralRankerSettings) -> list[str]:
    """Return the names of the fields in the settings. If ``pair_fields`` is null, :data:`USUAL` is used instead."""
    return [name for entries in _entries(settings) for name, _ in entries]


def _entries(settings: NeuralRankerSettings) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return (name, entry) of each pair field, and (name, entry) of each field in the setting ``fields``."""

    def named(given: Sequence[str | dict[str, Any]], make: Callable[[Any], Field]) -> list[tuple[str, Any]]:
        return [(make(entry).name, entry) for entry in given]

    pairs = USUAL if settings.pair_fields is None else settings.pair_fields
    return (
        named(pairs, lambda entry: pair_fields([entry])[0]),
        named(settings.fields, lambda entry: make_field(entry, "ranking.fields")),
    )


def context_field(dataset: Dataset, column: str) -> Field:
    """Return a number field for a column of floats or decimals, otherwise a category field.

    A category field cuts many distinct numbers into bins. The choice depends only on the type of the column, never on
    later values of the log.
    """
    kind = dataset.events.schema[column]
    made = NumberField if kind.is_float() or kind.is_decimal() else CategoryField
    return made(column, "context", f"context:{column}")


def profile_columns(users: pl.DataFrame) -> tuple[str, ...]:
    """Return the informative profile columns.

    These are the columns with at least 2 and at most max(1,000, number of users / 10) distinct values. The upper limit
    does not apply to numeric columns with more than :data:`FEW_VALUES` distinct values.
    """
    columns = []
    for name in users.columns:
        if name in ("user", "user_id") or users[name].dtype.is_nested():
            continue
        distinct = users[name].n_unique()
        wide = users[name].dtype.is_numeric() and distinct > FEW_VALUES
        if wide or 1 < distinct <= max(1000, len(users) // 10):
            columns.append(name)
    return tuple(columns)
