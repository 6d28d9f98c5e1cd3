"""Stage `retriever`; a run has one such stage per retriever in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class RetrieverStage(Stage):
    """Stage that fits a retriever on all events before the test period.

    Args:
        name: name of the retriever in the configuration.
        values: section of the retriever in the configuration.
    """

    name = "retriever"
    summary = "Fit a retriever on all events before the test period."
    needs = ("data",)
    settings = ("split",)

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.variant, self.values = name, dict(values)

    def parameters(self) -> dict[str, Any]:
        """Return the retriever's section without the merge settings ``weight`` and ``quota``."""
        from taiji.cascade.assembly import OWN_KEYS

        return {key: value for key, value in self.values.items() if key == "model" or key not in OWN_KEYS}

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of events."""
        return Amount(log.events)

    def run(self, context: Context) -> dict[str, Any]:
        """Fit and save the retriever."""
        import polars as pl

        from taiji.cascade.assembly import make_retriever
        from taiji.data import time_split
        from taiji.pipeline.run_data import load

        dataset = load(context)
        start, _ = time_split(dataset, context.config.split).interval("test")
        past = dataset.events.filter(pl.col("time") < start)
        made = make_retriever(self.variant, self.values).fit(dataset, past, seed=context.config.seed)
        made.save(context.folder / "retriever")
        return {"interactions": int((past["click"] == 1).sum()), "keeps_seen": made.keeps_seen, "version": made.version}
