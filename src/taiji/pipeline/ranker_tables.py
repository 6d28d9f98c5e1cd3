"""Find the files that the ranker reads in training, without heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.file_state import State, named_files

if TYPE_CHECKING:
    from taiji.config import Config


def ranker_tables(config: Config) -> State:
    """Return the state of the tables and of the embedders' folders that ``ranking`` names. A ranker depends on their
    content."""
    given = getattr(config.ranking, "pair_fields", None) or ()
    entries = [entry for entry in given if isinstance(entry, dict)]
    named = [entry.get(name) for entry in entries for name in ("table", "embedder")]
    return named_files(*named, getattr(config.ranking, "embedder", None))


def recommender_tables(config: Config) -> State:
    """Return the state of the files that the ranker of a recommender reads: those of :func:`ranker_tables`, and the
    features of another run."""
    from taiji.features.other_run import features_state

    path = config.recommend.features
    return [*(features_state(path) if path is not None else []), *ranker_tables(config)]
