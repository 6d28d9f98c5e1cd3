"""A field: the hour of the day at which the request was made."""

import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.fields import CategoryField


class HourOfDay(CategoryField):
    """Hour of the request, 0 to 23, in UTC.

    Args:
        name: name of the field.
    """

    def __init__(self, name: str = "hour") -> None:
        super().__init__(name, side="context")
        self.options = {"name": name}  # arguments with which a saved model restores the field

    def values(self, dataset: Dataset, source: pl.DataFrame) -> pl.DataFrame:
        """Return the hour of each row."""
        return source.select(pl.from_epoch("time", time_unit="us").dt.hour().alias(self.name))
