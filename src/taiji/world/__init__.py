"""Simulated worlds with known ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.world.environment import WorldEnv
    from taiji.world.exposure import Exposure
    from taiji.world.mechanism import Ground, Mechanism
    from taiji.world.observation import Choice, Observation, SlatePolicy
    from taiji.world.policies import RankingPolicy, make_policy
    from taiji.world.scenario import Scenario, load_scenario, scenarios
    from taiji.world.scorer_policy import ScorerPolicy
    from taiji.world.truth import Truth
    from taiji.world.world import World

_HOMES = {
    "WorldEnv": "environment",
    "Exposure": "exposure",
    "Ground": "mechanism",
    "Mechanism": "mechanism",
    "Choice": "observation",
    "Observation": "observation",
    "SlatePolicy": "observation",
    "RankingPolicy": "policies",
    "make_policy": "policies",
    "Scenario": "scenario",
    "load_scenario": "scenario",
    "scenarios": "scenario",
    "ScorerPolicy": "scorer_policy",
    "Truth": "truth",
    "World": "world",
}
__all__ = [
    "Choice",
    "Exposure",
    "Ground",
    "Mechanism",
    "Observation",
    "RankingPolicy",
    "Scenario",
    "ScorerPolicy",
    "SlatePolicy",
    "Truth",
    "World",
    "WorldEnv",
    "load_scenario",
    "make_policy",
    "scenarios",
]
__getattr__ = lazy_names(__name__, _HOMES)
