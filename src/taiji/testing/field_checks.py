"""Checks of fields and sources."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.data.dataset import Dataset
from taiji.data.fields import CodeField, Field, NumbersField, Rows, Saved
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.settings import DataSettings
from taiji.data.sources import Source
from taiji.data.splits import later_slice
from taiji.testing.datasets import evenly_spaced

OWN_TIME = 16
"""Largest number of rows whose values are compared with those in a dataset without the events from the row's time on."""


def check_field(field: Field, dataset: Dataset, rows: pl.DataFrame) -> None:
    """Check the contract of a field.

    Values are the same in repeated calls and for each row alone, numbers are finite, codes lie within the
    vocabulary, nothing at or after a row's time is read, and the field survives saving and loading.

    Args:
        field: an unfitted field.
        dataset: dataset with the columns that the field reads.
        rows: exposures at different times.
    """
    field.fit(dataset, rows, int(rows["time"].max()) + 1)  # type: ignore[arg-type]
    found = _answer(field, dataset, rows)
    _same(_answer(field, dataset, rows), found, "on the second call")
    if isinstance(field, CodeField):
        assert found[0].min() >= 0 and found[0].max() < len(field.vocabulary), "codes outside the vocabulary"
    assert all(np.isfinite(values.astype(np.float64)).all() for values in found), "values that are not finite"
    if not isinstance(field, CodeField) or field.side not in ("user", "item"):
        for place in range(min(5, len(rows))):
            alone = [values[place : place + 1] for values in found]
            _same(_answer(field, dataset, rows[place : place + 1]), alone, f"row {place} alone")
        earlier, later = later_slice(rows, 0.5)
        now = int(later["time"].min())  # type: ignore[arg-type]
        first = rows.filter(pl.col("time") <= now)
        _same(
            _answer(field, dataset.before(now), first),
            _answer(field, dataset, first),
            "after future events were removed",
        )
        assert len(earlier), "rows at a single time cannot show that the future is not read"
        for place in _sampled(rows):  # a row's own event, such as its click, is in the future, too
            row = rows[place : place + 1]
            past, alone = dataset.before(row["time"][0]), [values[place : place + 1] for values in found]
            _same(_answer(field, past, row), alone, f"in row {place} after the events from its time on were removed")
    saved = Saved(**json.loads(json.dumps(vars(Saved.of(field)))))
    again = saved.make()
    again.restore(saved.config, field.tensors())
    _same(_answer(again, dataset, rows), found, "after saving and loading")


def _sampled(rows: pl.DataFrame) -> list[int]:
    """Return places of up to :data:`OWN_TIME` rows, evenly spaced; half of them are clicked, if the rows have clicks."""
    clicked = np.flatnonzero(rows["click"] == 1) if "click" in rows.columns else np.zeros(0, np.int64)
    return sorted(
        {*evenly_spaced(len(rows), OWN_TIME // 2), *clicked[evenly_spaced(len(clicked), OWN_TIME // 2)].tolist()}
    )


def check_source(source: Source, settings: DataSettings | None = None) -> None:
    """Check that repeated calls of a source return the same valid tables, and the same JSON-serialisable state.

    Args:
        source: source of an existing log.
        settings: settings that the source is called with; by default ``DataSettings()``.
    """
    settings = settings or DataSettings()
    first, again = (Dataset.from_tables(source.load(settings, 0)) for _ in range(2))
    for name in ("items", "users", "events"):
        assert getattr(first, name).equals(getattr(again, name)), f"a different table of {name} on the second call"
    assert json.dumps(source.state(settings)) == json.dumps(source.state(settings)), (
        "the state changes without a change of the source"
    )


def _answer(field: Field, dataset: Dataset, frame: pl.DataFrame) -> list[NDArray[np.generic]]:
    """Return a field's arrays for rows."""
    rows = Rows(dataset, frame)
    if isinstance(field, CodeField):
        return [field.codes(dataset, rows.source(field.side))]
    if isinstance(field, NumbersField):
        return [field.matrix(rows)]
    if isinstance(field, SequenceField):
        return [values for values in field.sequences(rows) if values is not None]
    if isinstance(field, CodesField):
        return [field.codes(rows)]
    assert isinstance(field, VectorField), f"{type(field).__name__} is not a kind of field that models support"
    return list(field.vectors(rows))


def _same(found: list[NDArray[np.generic]], expected: list[NDArray[np.generic]], what: str) -> None:
    assert len(found) == len(expected), f"{what}: {len(found)} arrays, expected {len(expected)}"
    for got, wanted in zip(found, expected):
        np.testing.assert_array_equal(got, wanted, f"different values {what}")
