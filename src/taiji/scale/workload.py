"""Amount of work of every stage of a configuration; a plan sums these amounts."""

from __future__ import annotations

from taiji.config import Config
from taiji.pipeline.amounts import Amount, Log
from taiji.pipeline.recipes import stages_of


def workload(config: Config, log: Log) -> dict[str, Amount]:
    """Return each stage's amount of work, as declared by the stages."""
    return {stage.key: stage.cost(stage.configured(config), log) for stage in stages_of(config)}
