"""Load a dataset from settings."""

from __future__ import annotations

from taiji.data.dataset import Dataset
from taiji.data.reading_checks import warn
from taiji.data.settings import DataSettings
from taiji.data.sources import read_source


def load_dataset(settings: DataSettings, seed: int = 0) -> Dataset:
    """Read the source that the settings name, and convert it to a dataset. The findings of the reading report are
    logged as warnings."""
    tables = read_source(settings, seed)
    warn(tables.reading)
    return Dataset.from_tables(tables)
