"""Validated tables, data sources, datasets with dense ids, histories, splits by time, and prompt examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset
    from taiji.data.event_columns import EventColumns
    from taiji.data.examples import make_examples
    from taiji.data.history import History
    from taiji.data.loading import load_dataset
    from taiji.data.schema import Tables, validate
    from taiji.data.settings import DataSettings, ExampleSettings, SplitSettings
    from taiji.data.sources import Source, load_source
    from taiji.data.splits import PERIODS, Split, exposures, fingerprint, scan_exposures, time_split
    from taiji.data.stored import open_dataset
    from taiji.data.tasks import Task

_HOMES = {
    "Dataset": "dataset",
    "EventColumns": "event_columns",
    "load_dataset": "loading",
    "make_examples": "examples",
    "History": "history",
    "Tables": "schema",
    "validate": "schema",
    "DataSettings": "settings",
    "ExampleSettings": "settings",
    "SplitSettings": "settings",
    "load_source": "sources",
    "Source": "sources",
    "PERIODS": "splits",
    "Split": "splits",
    "exposures": "splits",
    "fingerprint": "splits",
    "scan_exposures": "splits",
    "open_dataset": "stored",
    "Task": "tasks",
    "time_split": "splits",
}

__all__ = [
    "PERIODS",
    "DataSettings",
    "Dataset",
    "EventColumns",
    "ExampleSettings",
    "History",
    "Source",
    "Split",
    "SplitSettings",
    "Tables",
    "Task",
    "exposures",
    "fingerprint",
    "load_dataset",
    "load_source",
    "make_examples",
    "open_dataset",
    "scan_exposures",
    "time_split",
    "validate",
]

__getattr__ = lazy_names(__name__, _HOMES)
