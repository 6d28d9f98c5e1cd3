"""Stage `closed_loop`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount
from taiji.pipeline.composed_stage import ComposedStage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.experiments.cascade_loop import CascadePolicy
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context
    from taiji.world.observation import SlatePolicy
    from taiji.world.world import World


class ClosedLoop(ComposedStage):
    """Stage that lets the recommender serve in the simulated world of the log, from the test period on."""

    name = "closed_loop"
    summary = "Serve the users of the simulated world with the recommender, and compare it with popularity and the logging policy."
    settings = ("recommend", "split", "embedder", "data", "evaluation.resamples", "evaluation.level")

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of ranked candidates."""
        settings = config.recommend
        shown = log.exposures(3) / max(log.users, 1) / 10
        return Amount(min(settings.closed_loop_users, log.users) * shown * settings.budget.candidates)

    def run(self, context: Context) -> dict[str, Any]:
        """Serve with each policy and compare the results."""
        import numpy as np

        from taiji.cascade.evaluation import baseline_arms
        from taiji.core.artifacts import write_json
        from taiji.data import time_split
        from taiji.experiments.cascade_loop import CascadePolicy, OverCatalogue, serve_world
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_recommender import world_of
        from taiji.world.policies import make_policy
        from taiji.world.world_time import to_days, to_micros

        settings, dataset, world = context.config.recommend, load(context), world_of(context.config)
        assert world is not None, "the recipe includes this stage only if the source is a world"
        parts = self.components(context, dataset)
        start, _ = time_split(dataset, context.config.split).interval("test")
        midnight = int(to_micros(np.ceil(to_days(np.array([start])) - 1e-9))[0])
        known = dataset.before(midnight)
        features = parts.features
        if features is not None:  # later feature rows reflect lists of the logging policy
            features = features.made_before(midnight)
        user_ids = dataset.users["user_id"].to_numpy()
        random = np.random.default_rng([context.config.seed, len(user_ids)])
        users = np.sort(random.choice(user_ids, min(settings.closed_loop_users, len(user_ids)), replace=False))

        def cascade_of(names: Sequence[str]) -> Callable[[World], CascadePolicy]:
            def compose(live: Dataset) -> Any:
                return parts.cascade(settings, dataset, live, names)

            return lambda of: CascadePolicy(of, known, compose, None if features is None else features.joined_to)

        def named(name: str) -> Callable[[World], SlatePolicy]:
            return lambda of: make_policy(name, of)

        policies: dict[str, Callable[[World], SlatePolicy | CascadePolicy]] = {"all components": cascade_of(())}
        policies |= {
            f"{title} alone": cascade_of([arm]) for arm, title in baseline_arms(settings, parts.retrievers).items()
        }
        policies |= {
            f"logging policy ({world.scenario.policy})": named(world.scenario.policy),
            "click rates so far": lambda of: OverCatalogue(make_policy("popular", of)),
            "oracle": lambda of: OverCatalogue(make_policy("oracle", of)),
        }
        found = serve_world(
            world,
            policies,
            start,
            world.scenario.days,
            users,
            "all components",
            resamples=context.config.evaluation.resamples,
            level=context.config.evaluation.level,
            seed=context.config.seed,
        )
        write_json(context.folder / "closed_loop.json", found)
        return {"users": found["users"], "days": found["days"], "policies": len(policies)}
