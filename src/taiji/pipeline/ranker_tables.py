"""Find the files that the ranker's fields read in training, without heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.file_state import State, named_files

if TYPE_CHECKING:
    from taiji.config import Config


def ranker_tables(config: Config) -> State:
    """Return the state of the tables named in ``ranking.pair_fields``, on whose content a ranker depends."""
    given = getattr(config.ranking, "pair_fields", None) or ()
    return named_files(*(entry.get("table") for entry in given if isinstance(entry, dict)))
