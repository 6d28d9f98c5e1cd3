"""Read sequences without timestamps: each line holds a user id and then the ordered item ids, as in papers on
sequential recommendation."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.file_state import file_state
from taiji.data.sampling import sample_users
from taiji.data.schema import Tables
from taiji.data.settings import DataSettings
from taiji.data.sources.ratings import ids_of
from taiji.data.sources.source import Source

START = datetime(2000, 1, 1)
"""Date assigned to the first interaction of every user."""
FILE = "sequences.txt"
"""Name of the file to read if the argument is a folder."""
NOTE = (
    "The log has no timestamps: the k-th interaction of every user is dated to the k-th day. Evaluate by holding out each user's last "
    "interactions; a split by time would compare long histories with short ones."
)


class Sequences(Source):
    """Source ``sequences:PATH``, where the path is a text file of lines ``user item item …``, or a folder with a
    ``sequences.txt``."""

    takes = "FILE"

    @property
    def file(self) -> Path:
        """Path of the file."""
        path = Path(self.argument).expanduser()
        return path / FILE if path.is_dir() else path

    def state(self, settings: DataSettings) -> Any:
        """Return the state of the file."""
        return file_state([self.file] if self.file.is_file() else [])

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Return one click per interaction.

        Raises:
            InputError: the file is missing, empty or not UTF-8, a line has no items, or a user occurs on two lines.
        """
        events = _events(self.file)
        kept = sample_users(events, settings.users, seed)
        items = events.select("item_id").unique(maintain_order=True)  # the catalogue contains the items of all users
        events = events.filter(pl.col("user_id").is_in(kept.implode()))
        return Tables(
            items.with_columns(pl.col("item_id").alias("title")),
            ids_of(events),
            events,
            self.file.parent.name if self.file.name == FILE else self.file.stem,
            settings.domain or "shop",
            (NOTE,),
        )


def _events(file: Path) -> pl.DataFrame:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "Could not read a file of sequences.", where=str(file), expected="a text file in UTF-8", found=str(error)
        ) from error
    words = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    seen: dict[str, int] = {}
    for number, (user, *items) in words:
        if not items:
            raise InputError(
                "A user has no items.", where=f"{file}, line {number}", expected="user item item …", found=user
            )
        if user in seen:
            raise InputError(
                "A user occurs on two lines.",
                where=f"{file}, line {number}",
                expected="one line per user",
                found=f"{user}, first on line {seen[user]}",
            )
        seen[user] = number
    if not words:
        raise InputError(
            "A file of sequences is empty.",
            where=str(file),
            expected="on each line, a user id and the ids of the user's items in order, separated by spaces",
        )
    frame = pl.DataFrame({"user_id": [w[0] for _, w in words], "item_id": [w[1:] for _, w in words]})
    return (
        frame.with_columns(pl.int_ranges(pl.col("item_id").list.len()).alias("place"))
        .explode("item_id", "place")
        .select(
            "user_id",
            "item_id",
            (pl.lit(START) + pl.duration(days=pl.col("place"))).cast(pl.Datetime("us")).alias("timestamp"),
            pl.lit(1, pl.Int8).alias("click"),
            pl.lit(False).alias("exposed"),
        )
    )
