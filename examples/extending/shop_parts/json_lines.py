"""A source: items, users and events as JSON lines, with the seconds watched as an additional label."""

import polars as pl

from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.data.settings import DataSettings
from taiji.data.sources import FolderSource
from taiji.data.tasks import Task

COLUMNS = EventColumns(labels=(Task(name="watch_seconds", kind="duration"),), context=("screen",))


class JsonLines(FolderSource):
    """Folder with ``items.jsonl``, ``users.jsonl`` and ``events.jsonl``; times are seconds since the epoch."""

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Return the three tables; taiji checks them and says what is wrong with them."""
        items, users, events = (pl.read_ndjson(self.folder / f"{name}.jsonl") for name in ("items", "users", "events"))
        if settings.users is not None:
            users = users.sample(min(settings.users, len(users)), seed=seed)
            events = events.join(users.select("user_id"), on="user_id", how="semi")
        events = events.with_columns(pl.from_epoch("timestamp", time_unit="s"))
        return Tables(items, users, events, name=self.folder.name, event_columns=COLUMNS)
