"""Stage `ladder`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taiji.core.file_state import named_files
from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Ladder(Stage):
    """Stage that measures the value of text to a ranker on the run's log and on further logs, without running a
    language model."""

    name = "ladder"
    summary = "Compare rankers with more and more inputs, without a language model: counts, collaborative fields, texts, the true next items."
    needs = ("data",)
    settings = ("ladder", "embedder", "evaluation.resamples", "evaluation.level")

    def outside(self, config: Config) -> Any:
        """Return the state of the further logs, and of the embedder if it is a folder. The stage runs again when one of
        them changes."""
        from taiji.data.settings import DataSettings
        from taiji.data.sources import find_source

        others = [DataSettings(source=name) for name in config.ladder.logs]
        embedder = named_files(config.embedder.name)
        return [*(find_source(settings).state(settings) for settings in others), *([embedder] if embedder else [])]

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of training rows."""
        return Amount(5.0 * config.ladder.seeds * config.ladder.rows * (1 + len(config.ladder.logs)))

    def run(self, context: Context) -> dict[str, Any]:
        """Evaluate the ladder on each log."""
        from taiji.core.artifacts import write_json
        from taiji.data.dataset import Dataset
        from taiji.data.sources import load_source
        from taiji.experiments.log_ladder import climbed
        from taiji.pipeline.run_data import load

        config, chosen = context.config, context.config.ladder
        found = []
        for name in (None, *chosen.logs) if chosen.seeds else ():
            dataset = load(context) if name is None else Dataset.from_tables(load_source(name, seed=config.seed))
            result = climbed(
                dataset,
                config.embedder.name,
                chosen.seeds,
                config.evaluation.resamples,
                rows=chosen.rows,
                level=config.evaluation.level,
            )
            found.append({"log": dataset.name, **result})
        write_json(context.folder / "ladder.json", found)
        return {"logs": len(found)}

    def told(self, folder: Path) -> list[str]:
        """Return the conclusion of the ladder on the run's own log."""
        from taiji.core.artifacts import read_json
        from taiji.reporting.conclusion import ladder_conclusion

        found = read_json(folder / "ladder.json")
        reached = ladder_conclusion(found[0]["ladder"]) if found else None
        return [] if reached is None else reached.lines()
