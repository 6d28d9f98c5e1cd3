"""From settings to a dataset."""

from __future__ import annotations

from taiji.data.dataset import Dataset
from taiji.data.settings import DataSettings
from taiji.data.sources import read_source


def load_dataset(settings: DataSettings, seed: int = 0) -> Dataset:
    """Read the source that the settings name and number it."""
    return Dataset.from_tables(read_source(settings, seed))
