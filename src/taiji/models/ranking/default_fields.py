"""Fields that a log offers to every ranking model."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.fields import CategoryField, Field, IdField, NumberField, StatisticField, make_field
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.statistics import NAMES
from taiji.models.ranking.settings import NeuralRankerSettings

FEW = 50
"""Distinct whole numbers up to which a column is read as a category."""


def default_fields(dataset: Dataset, columns: Sequence[str], settings: NeuralRankerSettings) -> list[Field]:
    """Return the fields that a log offers: ids, categories, profile, statistics, history, features, and those of the settings.

    Args:
        dataset: the tables. columns: of the training rows. settings: sequence lengths, vocabularies, further fields.
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
    made += [make_field(given, f"ranking.fields[{place}]") for place, given in enumerate(settings.fields)]
    return made


def context_field(dataset: Dataset, column: str) -> Field:
    """Return a category for text, truth values and few whole numbers, and a number otherwise."""
    kind = dataset.events[column].dtype
    few = kind.is_integer() and dataset.events[column].n_unique() <= FEW
    return NumberField(column) if kind.is_numeric() and not few else CategoryField(column)


def profile_columns(users: pl.DataFrame) -> tuple[str, ...]:
    """Return the profile columns that can say something: neither one value for all nor almost one per user."""
    columns = []
    for name in users.columns:
        if name in ("user", "user_id") or users[name].dtype.is_nested():
            continue
        distinct = users[name].n_unique()
        wide = users[name].dtype.is_numeric() and distinct > FEW
        if wide or 1 < distinct <= max(1000, len(users) // 10):
            columns.append(name)
    return tuple(columns)
