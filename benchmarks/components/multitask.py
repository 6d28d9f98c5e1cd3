"""Do separate experts per task (PLE) help if carts and purchases have tastes of their own?

World: ``short-video`` with such tastes. In the twin, one taste determines all behaviours, so that separating the tasks
has no advantage. Arms, all with about the same number of weights: ``ple``; ``shared bottom``, the deciding baseline;
``mmoe``; ``esmm``. Metric: the mean AUC of all predicted probabilities. :mod:`benchmarks.components.comparison`
explains the columns, the checks, and what is held equal for all arms.

    python -m benchmarks.components --only multitask [--quick] [--json benchmarks/results/multitask.json]
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
