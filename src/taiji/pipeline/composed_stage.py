"""Base class of stages that compose a recommender from components fitted by other stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taiji.core.file_state import named_files
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.pipeline.engine import Context
    from taiji.pipeline.run_recommender import Components


class ComposedStage(Stage):
    """Stage that needs the data and every fitted component.

    Args:
        retrievers: names of the fitted retrievers.
        ranked: True if there is a candidate ranker.
        fitted: True if the run has a fitted fusion.
    """

    def __init__(self, retrievers: Sequence[str], ranked: bool, fitted: bool = False) -> None:
        self.retrievers, self.ranked, self.fitted = tuple(retrievers), ranked, fitted
        self.needs = (
            "data",
            *(f"retriever-{name}" for name in retrievers),
            *(("candidate_ranker",) * ranked),
            *(("fusion",) * fitted),
        )

    def outside(self, config: Config) -> object:
        """Return the state of the embedder if it is a folder: some re-rankers compare items by its embeddings."""
        return named_files(config.embedder.name) or None

    def components(self, context: Context, dataset: Dataset) -> Components:
        """Return the fitted components, bound to the run's dataset."""
        from taiji.pipeline.run_recommender import load_components

        return load_components(context, dataset, self.retrievers, self.ranked, self.fitted)
