"""What a ranker remembers of its training data: vocabularies and the shapes of the optional feature columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from taiji.core.errors import TaijiError
from taiji.data.vocabulary import Vocabulary, stable_hash
from taiji.models.ranking.settings import RankerSettings

LEVELS = ("category_l1", "category_l2", "category_l3")
PROFILE_BINS = 10
"""Quantile bins of a numeric profile column with many values."""


@dataclass
class Encoder:
    """Vocabularies over ids as given at the edge, and the layout of ``ids`` and ``vector``.

    Attributes:
        users, items: open vocabularies of ``user_id`` and ``item_id``.
        levels: one vocabulary a category level.
        profile: vocabulary of ``column=value`` texts; ``profile_edges`` holds the bins of wide numeric columns.
        id_slots, id_codes: number of quantiser ids a row and codes a slot (0, 0 when the column is not used).
        vector_width: length of ``vector`` (0 when not used); uses_neighbour: whether ``neighbour_items`` is used.
    """

    users: Vocabulary
    items: Vocabulary
    levels: tuple[Vocabulary, Vocabulary, Vocabulary]
    profile: Vocabulary
    profile_edges: dict[str, list[float]]
    profile_columns: tuple[str, ...]
    id_slots: int = 0
    id_codes: int = 0
    vector_width: int = 0
    uses_neighbour: bool = False

    @classmethod
    def fit(cls, dataset: Any, exposures: pl.DataFrame, settings: RankerSettings, until: int) -> Encoder:
        """Learn vocabularies from what is known before ``until`` (microseconds) and layouts from the exposures' columns."""
        past = dataset.events.filter(pl.col("time") < until)
        common = {"min_count": settings.min_count, "max_rows": settings.max_rows, "hashed": settings.hashed_rows}

        def ids(frame: pl.DataFrame, column: str, dense: str, size: int) -> Vocabulary:
            counts = np.bincount(past[dense].to_numpy(), minlength=size)[:size]
            return Vocabulary.fit(stable_hash(frame[column].to_list()), counts, **common)

        users = ids(dataset.users, "user_id", "user", len(dataset.users))
        items = ids(dataset.items, "item_id", "item", len(dataset.items))
        levels = tuple(_values(dataset.items, level) for level in LEVELS)
        columns, edges = _profile_layout(dataset.users)
        texts = [
            text for column in columns for text in set(_profile_texts(dataset.users, column, edges)) if text is not None
        ]
        profile = Vocabulary(stable_hash(texts), hashed=64)
        return cls(users, items, levels, profile, edges, columns, **_layout(exposures, settings))  # type: ignore[arg-type]

    def item_codes(self, items: pl.DataFrame) -> np.ndarray:
        """Rows of each item's id and category levels: (n_items + 1, 4) int64; the last row is padding (all 0)."""
        columns = [self.items.rows_of(stable_hash(items["item_id"].to_list()))]
        for name, vocabulary in zip(LEVELS, self.levels):
            columns.append(
                _repeated(items, name, vocabulary) if name in items.columns else np.zeros(len(items), dtype=np.int64)
            )
        return np.concatenate([np.stack(columns, axis=1), np.zeros((1, 4), dtype=np.int64)])

    def user_codes(self, users: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each user's id (n_users,) and of the profile values (n_users, P) int64, P >= 1."""
        rows = self.users.rows_of(stable_hash(users["user_id"].to_list()))
        profile = [
            self.profile.rows(_profile_texts(users, name, self.profile_edges))
            for name in self.profile_columns
            if name in users.columns
        ]
        missing = max(1, len(self.profile_columns)) - len(profile)
        profile += [np.zeros(len(users), dtype=np.int64)] * missing
        return rows, np.stack(profile, axis=1)

    def config(self) -> dict[str, Any]:
        """What is not a tensor, for ``config.json``."""
        vocabularies = {"users": self.users, "items": self.items, "profile": self.profile} | dict(
            zip(LEVELS, self.levels)
        )
        return {
            "hashed": {name: vocabulary.hashed for name, vocabulary in vocabularies.items()},
            "profile_edges": self.profile_edges,
            "profile_columns": list(self.profile_columns),
            "id_slots": self.id_slots,
            "id_codes": self.id_codes,
            "vector_width": self.vector_width,
            "uses_neighbour": self.uses_neighbour,
        }

    def tensors(self) -> dict[str, np.ndarray]:
        """The known hashes, for the safetensors file."""
        vocabularies = {"users": self.users, "items": self.items, "profile": self.profile} | dict(
            zip(LEVELS, self.levels)
        )
        return {f"vocabulary.{name}": vocabulary.known for name, vocabulary in vocabularies.items()}

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Encoder:
        """The inverse of :meth:`config` and :meth:`tensors`."""
        made = {name: Vocabulary(tensors[f"vocabulary.{name}"], hashed) for name, hashed in config["hashed"].items()}
        return cls(
            made["users"],
            made["items"],
            (made[LEVELS[0]], made[LEVELS[1]], made[LEVELS[2]]),
            made["profile"],
            config["profile_edges"],
            tuple(config["profile_columns"]),
            config["id_slots"],
            config["id_codes"],
            config["vector_width"],
            config["uses_neighbour"],
        )


def _values(frame: pl.DataFrame, column: str) -> Vocabulary:
    values = frame[column].drop_nulls().unique().to_list() if column in frame.columns else []
    return Vocabulary(stable_hash(values), hashed=64)


def _repeated(frame: pl.DataFrame, column: str, vocabulary: Vocabulary) -> np.ndarray:
    """Rows of a column with few distinct values, hashing each value once."""
    distinct = frame[column].unique().to_list()
    table = pl.DataFrame(
        {column: distinct, "row": vocabulary.rows(distinct)}, schema={column: frame[column].dtype, "row": pl.Int64}
    )
    return (
        frame.select(column)
        .join(table, on=column, how="left", nulls_equal=True, maintain_order="left")["row"]
        .to_numpy()
    )


def _profile_layout(users: pl.DataFrame) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """Profile columns in use, and quantile edges of the numeric ones with many values."""
    columns, edges = [], {}
    for name in users.columns:
        if name in ("user", "user_id") or users[name].dtype.is_nested():
            continue
        distinct = users[name].n_unique()
        if users[name].dtype.is_numeric() and distinct > 5 * PROFILE_BINS:
            values = users[name].cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
            edges[name] = np.unique(np.quantile(values, np.linspace(0, 1, PROFILE_BINS + 1)[1:-1])).tolist()
        elif not 1 < distinct <= max(1000, len(users) // 10):
            continue
        columns.append(name)
    return tuple(columns), edges


def _profile_texts(users: pl.DataFrame, column: str, edges: dict[str, list[float]]) -> list[str | None]:
    values: list[Any]
    if column in edges:
        numbers = users[column].cast(pl.Float64).fill_nan(None)
        bins = np.searchsorted(edges[column], numbers.fill_null(0).to_numpy())
        values = [None if missing else int(b) for missing, b in zip(numbers.is_null(), bins)]
    else:
        values = users[column].to_list()
    return [None if value is None else f"{column}={value}" for value in values]


def _layout(exposures: pl.DataFrame, settings: RankerSettings) -> dict[str, Any]:
    layout: dict[str, Any] = {"uses_neighbour": "neighbour_items" in exposures.columns}
    for column, key in (("ids", "id_slots"), ("vector", "vector_width")):
        if column not in exposures.columns or (column == "vector" and settings.text == "none"):
            continue
        lengths = exposures[column].list.len().drop_nulls().unique()
        if len(lengths) > 1:
            raise TaijiError(
                f"The feature column {column!r} must have one fixed length.",
                where=f"exposures[{column!r}]",
                expected="the same number of values in every row",
                found=f"lengths {sorted(lengths)[:5]}",
            )
        layout[key] = int(lengths[0]) if len(lengths) else 0
    if layout.get("id_slots"):
        highest = exposures["ids"].list.max().max()
        layout["id_codes"] = 1 << int(highest).bit_length()  # type: ignore[arg-type]
    if settings.text == "select_align" and layout.get("vector_width", 0) % settings.chunks:
        raise TaijiError(
            "The vector does not divide into chunks.",
            where="ranking.chunks",
            expected=f"a divisor of {layout['vector_width']}",
            found=str(settings.chunks),
        )
    return layout
