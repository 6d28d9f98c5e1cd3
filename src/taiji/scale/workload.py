"""Amount of work of every stage of a configuration, from which a plan computes costs."""

from __future__ import annotations

from taiji.config import Config
from taiji.pipeline.amounts import Amount, Log
from taiji.pipeline.recipes import stages_of


def workload(config: Config, log: Log) -> dict[str, Amount]:
    """Return the amount of work that each stage declares, by stage key."""
    return {stage.key: stage.cost(stage.configured(config), log) for stage in stages_of(config)}
