"""The fields of a model as a set: conversion of rows to arrays, and the description from which a network is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import CategoryField, Field, IdField, NumbersField, Rows, Saved, Side
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.statistics import PointInTime
from taiji.data.user_subset import NEW, UserSubset

Array = NDArray[Any]
F = TypeVar("F", bound=Field)


@dataclass(frozen=True)
class Categories:
    """Sizes of the category fields of one side: number of vocabulary rows, columns and hashed rows of each field."""

    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    hashed: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Number of codes per entity."""
        return sum(self.columns)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offset to add to each code, so that it indexes a table in which the rows of all fields are stacked, (width,).

        Codes of one field share an offset.
        """
        starts = np.cumsum([0, *self.rows])[:-1]
        return tuple(int(start) for start, columns in zip(starts, self.columns) for _ in range(columns))


@dataclass(frozen=True)
class Layout:
    """Description of a model's inputs, from which a network is built.

    Attributes:
        users, items: number of rows of the id vocabularies.
        user, item, row: sizes of the category fields of the user, of the item, and of the row (context and pair).
        numbers: names of the numeric inputs, in the order of their columns.
        sequences: (length, True if ages are known) by field name.
        codes: (number of slots, values per slot) by field name.
        vectors: width by field name.
    """

    users: int
    items: int
    user: Categories
    item: Categories
    row: Categories
    numbers: tuple[str, ...]
    sequences: Mapping[str, tuple[int, bool]]
    codes: Mapping[str, tuple[int, int]]
    vectors: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Arrays:
    """Rows converted to arrays. Sequences and codes are padded with -1.

    Attributes:
        user, item: dense ids, (N,) int32 each.
        numbers: numeric inputs, (N, F) float32.
        categories: codes of the categories of context and pair, (N, C) int32.
        sequences: items by field name, (N, L) int32 each.
        ages: ages of these items as log1p of hours, by field name, (N, L) float16 each.
        codes: quantiser codes by field name, (N, M) int32 each.
        vectors: vectors by field name, (N, D) float32 each.
        present: 1 where a row has the vector and 0 elsewhere, by field name, (N,) float32 each.
        labels: labels by prediction name, (N,) float32 each, NaN where unknown.
        group: index of each row's request, (N,) int64; None if no task compares pairs of rows.
    """

    user: Array
    item: Array
    numbers: Array
    categories: Array
    sequences: Mapping[str, Array]
    ages: Mapping[str, Array]
    codes: Mapping[str, Array]
    vectors: Mapping[str, Array]
    present: Mapping[str, Array]
    labels: Mapping[str, Array]
    group: Array | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: Array | slice, *, labels: bool = True) -> Arrays:
        """Return the rows at ``index``, with or without their labels."""

        def of(parts: Mapping[str, Array]) -> dict[str, Array]:
            return {name: part[index] for name, part in parts.items()}

        return Arrays(
            self.user[index],
            self.item[index],
            self.numbers[index],
            self.categories[index],
            of(self.sequences),
            of(self.ages),
            of(self.codes),
            of(self.vectors),
            of(self.present),
            of(self.labels) if labels else {},
            self.group[index] if labels and self.group is not None else None,
        )


class FieldSet:
    """Set of the fields of a model, accessible by kind and side.

    Args:
        fields: fields with unique names, including an :class:`IdField` of the user and one of the item.

    Raises:
        ConfigError: two fields have the same name, a field has a kind that models cannot read, or an id field is
            missing.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(
                "Two fields have the same name.",
                where="fields",
                found=", ".join(twice),
                fix="set a different `name` for one of them",
            )
        kinds = (IdField, CategoryField, NumbersField, SequenceField, CodesField, VectorField)
        unknown = [f"{field.name} ({type(field).__name__})" for field in fields if not isinstance(field, kinds)]
        if unknown:
            raise ConfigError(
                "A field has a kind that models cannot read.",
                where="fields",
                expected="a subclass of " + ", ".join(kind.__name__ for kind in kinds),
                found=", ".join(unknown),
            )
        ids = {field.side: field for field in self._of(IdField)}
        if set(ids) != {"user", "item"}:
            raise ConfigError(
                "The ids of users or items are missing from the fields of a model.",
                where="fields",
                expected="one IdField with side user and one with side item",
                found=", ".join(names),
            )
        self.user_id, self.item_id = ids["user"], ids["item"]
        self.numbers, self.sequences = self._of(NumbersField), self._of(SequenceField)  # type: ignore[type-abstract]
        self.codes, self.vectors = self._of(CodesField), self._of(VectorField)
        self._categories = self._of(CategoryField)

    def _of(self, kind: type[F]) -> tuple[F, ...]:
        return tuple(field for field in self.fields if isinstance(field, kind))

    def categories(self, *sides: Side) -> tuple[CategoryField, ...]:
        """Return the category fields of the given sides."""
        return tuple(field for field in self._categories if field.side in sides)

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int, total: int | None = None) -> FieldSet:
        """Fit every field on data known before ``until``, and return the set without the fields that have no values.

        Args:
            dataset, rows, until: arguments of :meth:`taiji.data.fields.Field.fit`.
            total: number of training rows, if ``rows`` are only the first of them.
        """
        for field in self.fields:
            field.training_rows = total
            field.fit(dataset, rows, until)
        return FieldSet([field for field in self.fields if _has_values(field)])

    @property
    def layout(self) -> Layout:
        """Description from which a network is built."""

        def sizes(*sides: Side) -> Categories:
            found = self.categories(*sides)
            return Categories(
                tuple(len(f.vocabulary) for f in found),
                tuple(f.columns for f in found),
                tuple(f.vocabulary.hashed for f in found),
            )

        return Layout(
            users=len(self.user_id.vocabulary),
            items=len(self.item_id.vocabulary),
            user=sizes("user"),
            item=sizes("item"),
            row=sizes("context", "pair"),
            numbers=tuple(label for field in self.numbers for label in field.labels),
            sequences={field.name: (field.length, field.aged) for field in self.sequences},
            codes={field.name: (field.slots, field.values) for field in self.codes},
            vectors={field.name: field.width for field in self.vectors},
        )

    def user_codes(self, dataset: Dataset) -> Array:
        """Return the vocabulary rows of each user's id and C categories, (n_users, 1 + C) int64."""
        return _side_by_side(dataset, dataset.users, (self.user_id, *self.categories("user")))

    def subset_codes(self, users: UserSubset, codes: Array) -> Array:
        """Return :meth:`user_codes` for a subset of users.

        ``codes`` are the user codes of the base dataset. They are reused if every field depends only on the user's own
        row and no user is new; otherwise the codes are computed again.
        """
        fields = (self.user_id, *self.categories("user"))
        if all(field.reads_own_row for field in fields) and not (users.numbers == NEW).any():
            return codes[users.numbers]  # type: ignore[no-any-return]
        return self.user_codes(users)

    def item_codes(self, dataset: Dataset) -> Array:
        """Return the vocabulary rows of each item's id and C categories, (n_items + 1, 1 + C) int64. The last row is
        padding (all 0)."""
        codes = _side_by_side(dataset, dataset.items, (self.item_id, *self.categories("item")))
        return np.concatenate([codes, np.zeros((1, codes.shape[1]), dtype=np.int64)])

    def arrays(
        self,
        rows: Rows,
        labels: Mapping[str, Array],
        *,
        sides: Sequence[Side] = ("user", "item", "context", "pair"),
        grouped: bool = False,
    ) -> Arrays:
        """Convert rows to arrays, optionally only for the fields of some sides.

        Args:
            rows: rows of the dataset on which the fields were fitted, or of a later dataset.
            labels: labels of the rows by prediction name.
            sides: sides whose fields are converted; the caller fills in the fields of the other sides.
            grouped: True to compute :attr:`Arrays.group`, the index of each row's request.
        """
        nothing = [np.zeros((len(rows), 0), dtype=np.float32)]
        columns = [_matrix(field, rows) for field in self.numbers if field.side in sides]
        numbers = np.concatenate([*nothing, *columns], axis=1)
        own = "user" in sides
        sequences = {field.name: field.sequences(rows) for field in self.sequences if own}
        vectors = {field.name: field.vectors(rows) for field in self.vectors if own}
        pieces = [
            _side_by_side(rows.dataset, rows.frame, (field,))
            for field in self.categories("context", "pair")
            if field.side in sides
        ]
        return Arrays(
            user=rows.user.astype(np.int32),
            item=rows.item.astype(np.int32),
            numbers=np.ascontiguousarray(numbers),
            categories=np.concatenate([np.zeros((len(rows), 0), np.int32), *pieces], axis=1).astype(np.int32),
            sequences={name: items for name, (items, _) in sequences.items()},
            ages={name: ages for name, (_, ages) in sequences.items() if ages is not None},
            codes={field.name: field.codes(rows) for field in self.codes if own},
            vectors={name: values for name, (values, _) in vectors.items()},
            present={name: known for name, (_, known) in vectors.items()},
            labels=labels,
            group=_requests(rows) if grouped else None,
        )

    def adopt(self, other: FieldSet, names: Collection[str]) -> None:
        """Replace the fields with these names by the identical fields of another set. The arrays of these fields are
        then held in memory only once, and rankers can share the results of the fields.
        """
        known = {field.name: field for field in other.fields if field.name in names}
        self.__dict__.update(vars(FieldSet([known.get(field.name, field) for field in self.fields])))

    def config(self) -> list[dict[str, Any]]:
        """Return the classes, options and learnt values of the fields, for JSON."""
        return [vars(Saved.of(field)) for field in self.fields]

    def tensors(self) -> dict[str, Array]:
        """Return the arrays of the fields by the name ``field.<name>.<array>``."""
        return {f"field.{f.name}.{key}": value for f in self.fields for key, value in f.tensors().items()}

    @classmethod
    def restore(cls, config: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array]) -> FieldSet:
        """Make a set from the results of :meth:`config` and :meth:`tensors`."""
        made = []
        for entry in config:
            saved = Saved(**entry)
            field = saved.make()
            prefix = f"field.{field.name}."
            field.restore(saved.config, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            made.append(field)
        return cls(made)


def _matrix(field: NumbersField, rows: Rows) -> Array:
    """Return the values of a field; reuse them if another ranker has already computed them for the same rows."""
    known = rows.statistics if _is_shared(type(field)) else None
    if not isinstance(known, PointInTime) or known.shared is None:
        return field.matrix(rows)
    if field not in known.shared:
        known.shared[field] = field.matrix(rows)
    return known.shared[field]


@cache
def _is_shared(kind: type[NumbersField]) -> bool:
    """Return True if a class declares that its numbers can be shared. A subclass that overrides ``matrix`` must declare
    ``shared`` again."""
    for base in kind.__mro__:
        if "shared" in vars(base):
            return bool(vars(base)["shared"])
        if "matrix" in vars(base):
            return False
    return False


def _has_values(field: Field) -> bool:
    return not (
        (isinstance(field, CodesField) and not field.slots)
        or (isinstance(field, VectorField) and not field.width)
        or (isinstance(field, NumbersField) and not field.labels)
    )


def _side_by_side(dataset: Dataset, table: pl.DataFrame, fields: Sequence[IdField | CategoryField]) -> Array:
    codes = np.concatenate([field.codes(dataset, table) for field in fields], axis=1)
    if codes.shape != (len(table), sum(field.columns for field in fields)):
        raise InputError(
            "A field returned codes of the wrong shape.",
            where=", ".join(field.name for field in fields),
            expected=f"({len(table)}, {sum(field.columns for field in fields)})",
            found=str(codes.shape),
        )
    return codes


def _requests(rows: Rows) -> Array:
    """Number the requests of the rows: by list id where a row has one, otherwise by user and time."""
    if not len(rows):
        return np.zeros(0, np.int64)
    _, when = np.unique(rows.time, return_inverse=True)
    _, codes = np.unique(rows.user * (int(when.max()) + 1) + when, return_inverse=True)
    column = rows.dataset.event_columns.list_id
    if column is None or column not in rows.frame.columns:
        return codes
    lists = rows.frame[column].rank("dense")
    return np.where(lists.is_null(), lists.len() + 1 + codes, lists.fill_null(0)).astype(np.int64)
