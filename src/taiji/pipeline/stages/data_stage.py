"""Stage `data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taiji.core.errors import InputError
from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Data(Stage):
    """Stage that converts a source to tables with dense ids."""

    name = "data"
    summary = "Read and validate the source, and store the tables."
    settings = ("data",)

    def outside(self, config: Config) -> Any:
        """Return the state of the source. The stage runs again when it changes.

        Raises:
            InputError: a file-based source has no files.
        """
        from taiji.data.sources import find_source

        state = find_source(config.data).state(config.data)
        if state == []:
            raise InputError(
                "The source has no files.",
                where=config.data.source,
                expected=f"its files at this path (a relative path is resolved from {Path.cwd()})",
                fix="call taiji from the folder in which the run was started, or set the path with --data",
            )
        return state

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of events."""
        return Amount(log.events)

    def run(self, context: Context) -> dict[str, Any]:
        """Read, validate and store the tables."""
        from taiji.data import load_dataset

        dataset = load_dataset(context.config.data, context.config.seed)
        dataset.save(context.folder / "dataset")
        return {"users": dataset.n_users, "items": dataset.n_items, "events": len(dataset.events)}
