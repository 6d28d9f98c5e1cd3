"""A model's fields together: from rows to arrays, and the description that a network is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import CategoryField, Field, IdField, NumbersField, Rows, Saved, Side
from taiji.data.list_fields import CodesField, SequenceField, VectorField

Array = NDArray[Any]
F = TypeVar("F", bound=Field)


@dataclass(frozen=True)
class Categories:
    """Sizes of the category fields of one side: vocabulary rows, columns and hashed rows of each."""

    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    hashed: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Codes per entity."""
        return sum(self.columns)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each code's field in one table of all the fields' rows, (width,)."""
        starts = np.cumsum([0, *self.rows])[:-1]
        return tuple(int(start) for start, columns in zip(starts, self.columns) for _ in range(columns))


@dataclass(frozen=True)
class Layout:
    """Description of the inputs that a network is built from.

    Attributes:
        users, items: rows of the id vocabularies.
        user, item, row: categories of the user, of the item, and of the row (context and pair).
        numbers: names, in the order of the columns.
        sequences: name to (length, whether ages are known).
        codes: name to (slots, values a slot).
        vectors: name to width.
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
    """Rows as arrays; -1 pads sequences and codes.

    Attributes:
        user, item: (N,) int32 dense ids.
        numbers: (N, F) float32.
        categories: (N, C) int32, of context and pair.
        sequences: name to (N, L) int32 items; ages: name to (N, L) float16, log1p of hours.
        codes: name to (N, M) int32; vectors: name to (N, D) float32; present: name to (N,) float32.
        labels: prediction name to (N,) float32, NaN where it is unknown.
        group: (N,) int64, equal for rows of one request; None where no task looks at pairs of rows.
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
    """Fields by kind and side.

    Args:
        fields: with an :class:`IdField` of the user and one of the item among them, names unique.

    Raises:
        ConfigError: a name twice, or an id field missing.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(
                "Two fields have one name.",
                where="fields",
                found=", ".join(twice),
                fix="give one of them another `name`",
            )
        kinds = (IdField, CategoryField, NumbersField, SequenceField, CodesField, VectorField)
        unknown = [f"{field.name} ({type(field).__name__})" for field in fields if not isinstance(field, kinds)]
        if unknown:
            raise ConfigError(
                "A field is of a kind that no model can read.",
                where="fields",
                expected="a subclass of " + ", ".join(kind.__name__ for kind in kinds),
                found=", ".join(unknown),
            )
        ids = {field.side: field for field in self._of(IdField)}
        if set(ids) != {"user", "item"}:
            raise ConfigError(
                "A model needs the ids of users and items.",
                where="fields",
                expected="an IdField of each",
                found=", ".join(names),
            )
        self.user_id, self.item_id = ids["user"], ids["item"]
        self.numbers, self.sequences = self._of(NumbersField), self._of(SequenceField)  # type: ignore[type-abstract]
        self.codes, self.vectors = self._of(CodesField), self._of(VectorField)

    def _of(self, kind: type[F]) -> tuple[F, ...]:
        return tuple(field for field in self.fields if isinstance(field, kind))

    def categories(self, *sides: Side) -> tuple[CategoryField, ...]:
        """Return the category fields of some sides."""
        return tuple(field for field in self._of(CategoryField) if field.side in sides)

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> FieldSet:
        """Fit every field on what is known before ``until``; return the set without fields that found nothing."""
        for field in self.fields:
            field.fit(dataset, rows, until)
        return FieldSet([field for field in self.fields if _says_something(field)])

    @property
    def layout(self) -> Layout:
        """The description for a network."""

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
        """Return rows of each user's id and categories, (n_users, 1 + C) int64."""
        return _side_by_side(dataset, dataset.users, (self.user_id, *self.categories("user")))

    def item_codes(self, dataset: Dataset) -> Array:
        """Return rows of each item's id and categories, (n_items + 1, 1 + C) int64; the last row is padding (all 0)."""
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
        """Return arrays of rows; of the fields of some sides only, where the others are filled in later.

        Args:
            rows: rows of the dataset that the fields were fitted on, or a later one. labels: labels of the rows.
            sides: sides of the fields. grouped: tell which rows are of one request.
        """
        nothing = [np.zeros((len(rows), 0), dtype=np.float32)]
        columns = [field.matrix(rows) for field in self.numbers if field.side in sides]
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
            present={name: there for name, (_, there) in vectors.items()},
            labels=labels,
            group=_requests(rows) if grouped else None,
        )

    def config(self) -> list[dict[str, Any]]:
        """Return what is not a tensor, for JSON."""
        return [vars(Saved.of(field)) for field in self.fields]

    def tensors(self) -> dict[str, Array]:
        """Return the fields' arrays as ``field.<name>.<array>``."""
        return {f"field.{f.name}.{key}": value for f in self.fields for key, value in f.tensors().items()}

    @classmethod
    def restore(cls, config: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array]) -> FieldSet:
        """Take back what :meth:`config` and :meth:`tensors` returned."""
        made = []
        for entry in config:
            saved = Saved(**entry)
            field = saved.make()
            prefix = f"field.{field.name}."
            field.restore(saved.config, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            made.append(field)
        return cls(made)


def _says_something(field: Field) -> bool:
    return not (
        (isinstance(field, CodesField) and not field.slots)
        or (isinstance(field, VectorField) and not field.width)
        or (isinstance(field, NumbersField) and not field.labels)
    )


def _side_by_side(dataset: Dataset, table: pl.DataFrame, fields: Sequence[IdField | CategoryField]) -> Array:
    codes = np.concatenate([field.codes(dataset, table) for field in fields], axis=1)
    if codes.shape != (len(table), sum(field.columns for field in fields)):
        raise InputError(
            "A field returned codes of another shape.",
            where=", ".join(field.name for field in fields),
            expected=f"({len(table)}, {sum(field.columns for field in fields)})",
            found=str(codes.shape),
        )
    return codes


def _requests(rows: Rows) -> Array:
    """Return codes of the lists that were shown together: of the log's list ids where it has them, else a user at a time."""
    lists = rows.dataset.event_columns.list_id
    if lists is not None and lists in rows.frame.columns:
        return rows.frame[lists].rank("dense").fill_null(0).to_numpy().astype(np.int64)
    if not len(rows):
        return np.zeros(0, np.int64)
    _, when = np.unique(rows.time, return_inverse=True)
    _, codes = np.unique(rows.user * (int(when.max()) + 1) + when, return_inverse=True)
    return codes
