"""Stage `examples`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Examples(Stage):
    """Stage that splits the log into four periods and chooses the prompts of each role. The roles of the LLM period
    have no users in common."""

    name = "examples"
    summary = "Split by time and choose the prompts."
    needs = ("data",)
    settings = (
        "split",
        "examples",
        "reasoning.prompts.answer",
        "reasoning.prompts.next_items",
        *(f"size.{role}_prompts" for role in ("rationale", "calibration", "alignment", "test")),
    )

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of events."""
        return Amount(log.events, spread=True)

    def run(self, context: Context) -> dict[str, Any]:
        """Split the log and choose the prompts."""
        import polars as pl

        from taiji.core.artifacts import write_json, write_parquet
        from taiji.data import PERIODS, fingerprint, scan_exposures, time_split
        from taiji.data.examples import next_sets
        from taiji.pipeline.example_choice import choose_prompts, iso_time
        from taiji.pipeline.run_data import stored

        dataset = stored(context)
        split = time_split(dataset, context.config.split)
        chosen = choose_prompts(context, dataset, split)
        if context.config.reasoning.prompts.answer == "set":
            ends = [split.interval(period)[1] for period in chosen["period"]]
            chosen = chosen.with_columns(next_sets(dataset, chosen, ends, context.config.reasoning.prompts.next_items))
        write_parquet(context.folder / "examples.parquet", chosen)
        rows = {
            "exposures": {
                period: scan_exposures(dataset, split, period).select(pl.len()).collect(engine="streaming").item()
                for period in PERIODS
            },
            "prompts": dict(chosen["role"].value_counts().sort("role").iter_rows()),
        }
        dates = {period: [iso_time(time) for time in split.interval(period)] for period in PERIODS}
        # The fingerprint covers the original ids rather than dense ones, so it does not change if ids are renumbered.
        write_json(
            context.folder / "split.json",
            {"bounds": list(split.bounds), "fingerprint": fingerprint(chosen), "dates": dates, "rows": rows},
        )
        return rows
