"""PLE compared with MMoE, ESMM and a shared bottom with as many weights, where carts and purchases have tastes of their
own.

The twin has one taste for all behaviours, so that separating the tasks has no advantage.
"""

from __future__ import annotations

from benchmarks.components.comparison import Component
from benchmarks.components.ranking_worlds import TRAINING, ranker_arm, ranking_log
from taiji.models.ranking.multitask import ESMMRanker, MMoERanker, PLERanker

RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {**TRAINING, "min_steps": 100, "task_hidden": (16,), "pair_fields": ()}

COMPONENT = Component(
    claim="separate experts help tasks with different tastes",
    metric="auc",
    arms={
        "ple": ranker_arm(PLERanker, {**SHARED, "hidden": (12,), "own_experts": 1, "levels": 1}, RATES),
        "shared bottom": ranker_arm(MMoERanker, {**SHARED, "hidden": (76,), "experts": 1}, RATES),
        "mmoe": ranker_arm(MMoERanker, {**SHARED, "hidden": (20,)}, RATES),
        "esmm": ranker_arm(ESMMRanker, {**SHARED, "hidden": (19,)}, RATES),
    },
    data=ranking_log(
        "short-video", "taste.behaviours", users=200, items=300, days=8, quick_users=20, quick_items=60, quick_days=4
    ),
)
