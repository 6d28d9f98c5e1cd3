"""From frames to arrays to batches, without a Python loop over rows.

A batch names the distinct items and users it needs once; everything else points into these lists. Embeddings are then
looked up and projected once an item, not once a place in a sequence, which is most of the speed of training on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl
import torch

from taiji.core.errors import TaijiError
from taiji.data.statistics import DAY, NumericFeatures
from taiji.models.ranking.encoder import Encoder
from taiji.models.ranking.settings import RankerSettings


@dataclass
class Arrays:
    """Rows as arrays; -1 pads item sequences and ids.

    Shapes: user (N,), item (N,), numeric (N, F), history and age (log1p of hours) (N, L), neighbour (N, K), ids (N, M), vector (N, D),
    has_vector (N,), click (N,), ctcvr (N,) = click and conversion, NaN where it cannot be known, conversion (N,) the
    conversion of a click, NaN elsewhere. Columns that are not in use have width 0.
    """

    user: np.ndarray
    item: np.ndarray
    numeric: np.ndarray
    history: np.ndarray
    age: np.ndarray
    neighbour: np.ndarray
    ids: np.ndarray
    vector: np.ndarray
    has_vector: np.ndarray
    click: np.ndarray
    ctcvr: np.ndarray
    conversion: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> Arrays:
        """Rows ``index``."""
        return Arrays(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


class Batches:
    """Binds an encoder to one data set and makes arrays and batches from frames.

    Args:
        dataset: ``taiji.data.dataset.Dataset``.
        encoder: fitted vocabularies and layout.
        settings: sequence lengths.
        numeric: statistics of the same data set, if they were built before.
    """

    def __init__(
        self, dataset: Any, encoder: Encoder, settings: RankerSettings, numeric: NumericFeatures | None = None
    ) -> None:
        self.dataset, self.encoder, self.settings = dataset, encoder, settings
        self.numeric = numeric or NumericFeatures(dataset)
        self.item_codes = encoder.item_codes(dataset.items)
        self.user_rows, self.profile_rows = encoder.user_codes(dataset.users)
        self._place = np.zeros(len(self.item_codes), dtype=np.int64)

    def arrays(self, frame: pl.DataFrame) -> Arrays:
        """Arrays of exposures (columns user, item, time; click, conversion and feature columns where there are any)."""
        missing = {"user", "item", "time"} - set(frame.columns)
        if missing:
            raise TaijiError(
                "Columns are missing.", where="exposures", expected="user, item, time", found=", ".join(frame.columns)
            )
        user, item, time = (frame[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
        history = times = np.zeros((len(frame), 0), dtype=np.int64)
        if self.settings.embeddings:  # without them nothing reads it
            history, times = self.dataset.history.before_batch(user, time, self.settings.history)
        hours = np.maximum(time[:, None] - times, 0) / (DAY / 24)
        n = len(frame)
        click, conversion, ctcvr = _labels(frame, time)
        width = self.encoder.vector_width
        vector = _fixed(frame, "vector", width, np.nan) if width else np.zeros((n, 0))
        has_vector = np.isfinite(vector).all(axis=1) & (width > 0)
        ids = _fixed(frame, "ids", self.encoder.id_slots, -1.0).astype(np.int32)
        return Arrays(
            user=user.astype(np.int32),
            item=item.astype(np.int32),
            numeric=self.numeric.matrix(user, item, time),
            history=history.astype(np.int32),
            age=np.where(history >= 0, np.log1p(hours), 0).astype(np.float16),
            neighbour=_padded(frame, self.settings.neighbour)
            if self.encoder.uses_neighbour
            else np.zeros((n, 0), np.int32),
            ids=np.where(ids >= self.encoder.id_codes, -1, ids),
            vector=np.where(np.asarray(has_vector)[:, None], vector, 0).astype(np.float32),
            has_vector=np.asarray(has_vector, dtype=np.float32),
            click=click,
            ctcvr=ctcvr,
            conversion=conversion,
        )

    def batch(self, arrays: Arrays, index: np.ndarray | slice) -> dict[str, torch.Tensor]:
        """The model's input for some rows; see :class:`taiji.models.ranking.model.RankerModel`."""
        users, user = np.unique(arrays.user[index], return_inverse=True)
        wanted = [arrays.item[index], arrays.history[index], arrays.neighbour[index]]
        distinct = self._distinct(wanted)
        slots = self.encoder.id_slots
        offset = 1 + np.arange(slots, dtype=np.int32) * self.encoder.id_codes
        ids = arrays.ids[index]
        out = {
            "users": self.user_rows[users],
            "profiles": self.profile_rows[users],
            "user": user,
            "items": self.item_codes[distinct],
            "item": self._place[wanted[0]],
            "history": self._place[wanted[1]],
            "age": arrays.age[index].astype(np.float32),
            "numeric": arrays.numeric[index],
        }
        if arrays.neighbour.shape[1]:
            out["neighbour"] = self._place[wanted[2]]
        if slots:
            out["ids"] = np.where(ids < 0, 0, ids + offset).astype(np.int64)
        if self.encoder.vector_width:
            out["vector"], out["has_vector"] = arrays.vector[index], arrays.has_vector[index]
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in out.items()}

    def _distinct(self, wanted: list[np.ndarray]) -> np.ndarray:
        """Distinct items, padding first; afterwards ``self._place[item]`` is an item's position (−1 points at the padding)."""
        seen = np.zeros(len(self.item_codes), dtype=bool)
        for items in wanted:
            seen[items] = True
        seen[-1] = False
        distinct = np.concatenate([[len(self.item_codes) - 1], np.flatnonzero(seen)])
        self._place[distinct] = np.arange(len(distinct))
        return distinct


def _labels(frame: pl.DataFrame, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Click, conversion of a click, and click-and-conversion, (N,) float32 each; NaN = not known.

    A row that was not clicked did not convert, but it may speak only for the stretch of time in which a click's
    conversion would have been known as well. Otherwise the newest weeks, whose conversions are still open, would
    contribute certain negatives and no positives, and CTCVR would come out too low.
    """
    nothing = np.full(len(frame), np.nan, dtype=np.float32)
    if "click" not in frame.columns:
        return nothing, nothing, nothing
    click = frame["click"].cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)
    if "conversion" not in frame.columns:
        return click, nothing, nothing
    label = frame["conversion"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    conversion = np.where(click == 1, label, np.nan).astype(np.float32)
    known = np.isfinite(conversion)
    horizon = time[known].max() if known.any() else np.iinfo(np.int64).min
    ctcvr = np.where(click == 0, np.where(time <= horizon, 0.0, np.nan), conversion).astype(np.float32)
    return click, conversion, ctcvr


def _fixed(frame: pl.DataFrame, column: str, width: int, absent: float) -> np.ndarray:
    """A list column of fixed length as (N, width) float; rows without a list hold ``absent``."""
    out = np.full((len(frame), width), absent, dtype=np.float32)
    if width and column in frame.columns:
        present = (frame[column].list.len() == width).fill_null(False).to_numpy()
        wrong = (frame[column].list.len() != width).fill_null(False)
        if wrong.any():
            raise TaijiError(
                f"The feature column {column!r} has another length than at training.",
                where=f"exposures[{column!r}]",
                expected=f"{width} values",
                found=f"{frame[column].list.len().filter(wrong)[0]}",
            )
        out[present] = frame[column].filter(pl.Series(present)).explode().to_numpy().reshape(-1, width)
    return out


def _padded(frame: pl.DataFrame, width: int) -> np.ndarray:
    """``neighbour_items``, newest first, as (N, width) int32 padded with -1."""
    out = np.full((len(frame), width), -1, dtype=np.int32)
    if "neighbour_items" in frame.columns:
        lists = frame["neighbour_items"].list.head(width)
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        values = lists.filter(pl.Series(lengths > 0)).explode().to_numpy()
        row = np.repeat(np.arange(len(frame)), lengths)
        column = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[row, column] = values
    return out
