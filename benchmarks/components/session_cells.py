"""Does a fusion of predictions that learns from whole sessions make users watch more (xMTF)?

In the world ``retention``, pleasing lists keep users; in the twin, lists affect neither leaving nor returning. The
return of a session is the number of seconds watched. Clickbait keeps users watching for the moment and disappoints
them, so ordering items by the seconds watched now does not maximise the seconds watched in total. In the twin it does.

xMTF fuses predictions by *cells*, one per prediction: an increasing outer function of an increasing inner function. The
inner functions are fitted to the order of the watched seconds in a log of a random policy (inner stage). A policy,
learnt in training episodes, then sets the slopes of the outer functions for each request (outer stage). Metric: seconds
watched per user, in test episodes that no arm was trained on.

Arms: ``xmtf``; ``inner stage alone``, the deciding baseline (in the twin, an outer stage cannot help); and three arms
with as many episodes and the same predictions, which learn weights of the predictions' logarithms. These are ``linear,
the same policy``; ``linear, cross-entropy method``, which divides the users of each episode among ten candidates; and
``linear, TD3``, whose critic learns from single requests. :mod:`benchmarks.components.comparison` explains the columns,
the checks, and what is held equal for all arms. Numbers of parameters are not compared.

In a first run, there were 200 users, and the standard deviation of the logarithms of the slopes tried was half as
large. The gain over the inner stage alone was 19 seconds (−84 to +122) of some 789 per user. The present sizes were
then chosen in two other worlds, and the run was repeated in new ones.

The exact part counts the *violations*: scores that fall when a prediction is raised, whatever the policy.

    python -m benchmarks.components --only session_cells [--quick] [--json benchmarks/results/session_cells.json]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, WORLD, Arm, Component, Outcome
from benchmarks.harness import Result
from taiji.core.component import NO_ITEM, Requests
from taiji.core.optional import needs
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.session_cells import SessionCells, SessionCellsSettings
from taiji.models.policy.session_policy import SessionPolicy
from taiji.world import World
from taiji.world.environment import WorldEnv
from taiji.world.observation import Choice, Observation

Array = NDArray[Any]
STATE = ("place",)
EPISODES, ROUNDS, CANDIDATES, TESTS = 12, 3, 10, 2
SPREAD = 1.0
"""Standard deviation of the drawn policy parameters, which determine the logarithms of weights and of slopes."""
Score = Callable[[Array, Requests], Array]
"""Function from predictions (B, C, K) and requests to scores (B, C)."""


@dataclass(frozen=True, eq=False)
class Episode:
    """The N requests of an episode in chronological order, with lists of L items that have K predictions each, and
    totals per user.

    Attributes:
        user: (N,).
        states: (N, S) states that a policy reads.
        rewards: (N,) seconds watched.
        returned: (users,) sum of each user's rewards.
        shown: (N, L, K) predictions of the shown items.
        watched: (N, L) seconds, NaN for items that were not viewed.
        totals: means over users by name.
    """

    user: Array
    states: Array
    rewards: Array
    returned: Array
    shown: Array
    watched: Array
    totals: dict[str, float]


class Sessions:
    """Episodes of a world, each with a seed of its own."""

    def __init__(self, world: World, seed: int) -> None:
        self.env, self.seed, self.played = WorldEnv(world), seed, 0
        self.first = 1000 * (seed + 200)  # settings were chosen in worlds with smaller seeds
        self.tasks = self.env.fused

    @property
    def users(self) -> int:
        """Number of users in an episode."""
        return self.env.world.scenario.users

    def next(self, score: Score) -> Episode:
        """Play the next training episode."""
        self.played += 1
        return self.play(score, self.first + self.played)

    def play(self, score: Score, seed: int) -> Episode:
        """Play the episode of a seed."""
        self.env.reset(seed=seed)
        world, parts = self.env.world, []
        while world.slot * world.slot_days < world.scenario.days:
            asked = world.observation
            requests, predicted = self.told(asked), self.env.predictions(asked)
            scores = np.where(asked.candidates.items == NO_ITEM, -np.inf, score(predicted, requests))
            best = np.argsort(-scores, axis=1, kind="stable")[:, : world.scenario.slate]
            found = world.step(Choice(np.take_along_axis(asked.candidates.items, best, axis=1)))
            watched = np.where(found.outcome["view"] == 1, found.outcome["watch"], np.nan)
            states = np.stack([requests.columns[name] for name in STATE], axis=1)
            shown = np.take_along_axis(predicted, best[..., None], axis=1)
            parts.append((requests.user, states, np.nansum(watched, axis=1), shown, watched, found.outcome["pleased"]))
        user, states, rewards, shown, watched, pleased = (np.concatenate(column) for column in zip(*parts))
        returned = np.bincount(user, rewards, minlength=self.users)
        totals = {"lists per user": len(user) / self.users, "pleased per user": float(pleased.sum()) / self.users}
        totals["seconds per user"] = float(returned.mean())
        return Episode(user, states, rewards, returned, shown, watched, totals)

    def told(self, asked: Observation) -> Requests:
        """Return the requests with the state of the session, which is the number of its earlier requests."""
        return Requests(asked.requests.user, asked.requests.time, {"place": asked.place.astype(float)})

    def named(self, predicted: Array) -> dict[str, Array]:
        """Return predictions (…, K) by their names."""
        return {task: predicted[..., k] for k, task in enumerate(self.tasks)}

    def outcome(self, score: Score) -> Outcome:
        """Return the outcome of a policy, from one validation episode and the test episodes."""
        chosen = self.play(score, self.first + 900).totals["seconds per user"]
        tests = [self.play(score, self.first + 950 + number).totals for number in range(TESTS)]
        return Outcome(chosen, {name: float(np.mean([test[name] for test in tests])) for name in tests[0]})


def data(place: str, seed: int, quick: bool) -> tuple[World, int]:
    """Return a world, and the number of training episodes."""
    users, days = (60, 2) if quick else (400, 3)
    sizes = {"users": users, "items": 400, "days": days, "candidates": 20, "slot_hours": 24}
    world = World("retention", seed, **sizes, reward={"watch": 1.0})
    return (world.twin("retention") if place == TWIN else world), (ROUNDS if quick else EPISODES)


def logged(sessions: Sessions) -> FusionRows:
    """Return the slates of one episode of a random policy."""
    random = np.random.default_rng(sessions.seed)
    found = sessions.next(lambda predicted, requests: random.random(predicted.shape[:2]))
    requests = Requests(found.user, np.arange(len(found.user)), dict(zip(STATE, found.states.T)))
    return FusionRows(requests, sessions.named(found.shown), {"watch": found.watched})


def cells(outer: bool) -> Any:
    """Return the function that trains and tests the cells, with or without the outer stage. The log counts as one of
    the episodes."""

    def run(given: tuple[World, int], configuration: Mapping[str, Any], seed: int) -> Outcome:
        world, episodes = given
        sessions, random = Sessions(world, seed), np.random.default_rng([seed, 1])
        settings = {
            "weights": dict.fromkeys(sessions.tasks, 1.0),
            "state": STATE,
            "grid": 9,
            "epochs": 10,
            "spread": SPREAD,
        }
        rows = logged(sessions)
        fuser = SessionCells(SessionCellsSettings.model_validate({**settings, **configuration})).fit(rows, seed=seed)
        left = episodes - 1 if outer else 0
        for part in np.array_split(np.arange(left), ROUNDS) if outer else ():
            for _ in part:
                drawn = fuser.policy.draw(sessions.users, random)
                found = sessions.next(
                    lambda predicted, requests, drawn=drawn: fuser.explore(predicted, requests, drawn[requests.user])
                )
                fuser.improve(drawn, found.returned)
            if len(part) and part[-1] + 1 < left:
                fuser.transfer(rows, seed)
        return sessions.outcome(fuser.score)

    return run


def linear_policy(given: tuple[World, int], configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run a weighted sum of the predictions' logarithms, whose weights a policy sets from the state. The policy is
    learnt like that of the cells."""
    world, episodes = given
    sessions, random = Sessions(world, seed), np.random.default_rng([seed, 1])
    policy = SessionPolicy(len(sessions.tasks), len(STATE), SPREAD)

    def score(predicted: Array, requests: Requests, drawn: Array | None = None) -> Array:
        states = np.clip(np.stack([requests.columns[name] for name in STATE], axis=1) / 5, 0.0, 1.0)
        return np.einsum("bk,bck->bc", np.exp(policy.act(states, drawn)), predicted)

    for _ in range(episodes):
        drawn = policy.draw(sessions.users, random)
        found = sessions.next(lambda predicted, requests, drawn=drawn: score(predicted, requests, drawn[requests.user]))
        policy.improve(drawn, found.returned, configuration["rate"])
    return sessions.outcome(score)


def cross_entropy(given: tuple[World, int], configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run the cross-entropy method over the weights of the predictions' logarithms."""
    world, episodes = given
    sessions, random = Sessions(world, seed), np.random.default_rng([seed, 1])
    mean, spread = np.ones(len(sessions.tasks)), np.ones(len(sessions.tasks))
    for _ in range(episodes):
        tried = mean + spread * random.normal(size=(CANDIDATES, len(mean)))
        whose = random.permutation(np.arange(sessions.users) % CANDIDATES)
        found = sessions.next(
            lambda predicted, requests, tried=tried[whose]: np.einsum("bk,bck->bc", tried[requests.user], predicted)
        )
        worth = np.bincount(whose, found.returned) / np.bincount(whose)
        best = tried[np.argsort(-worth)[: configuration["best"]]]
        mean, spread = 0.3 * mean + 0.7 * best.mean(axis=0), 0.3 * spread + 0.7 * best.std(axis=0)
    return sessions.outcome(lambda predicted, requests: predicted @ mean)


def td3(given: tuple[World, int], configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run TD3 (stable-baselines3) over weights between 0 and 1 of the predictions' logarithms, with one transition per
    request."""
    with needs("peers"):
        import gymnasium
        from stable_baselines3 import TD3
        from stable_baselines3.common.logger import Logger

    world, episodes = given
    sessions, random = Sessions(world, seed), np.random.default_rng([seed, 1])
    count = len(sessions.tasks)

    class Spaces(gymnasium.Env[Array, Array]):
        observation_space = gymnasium.spaces.Box(-10.0, 10.0, (len(STATE),), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (count,), np.float32)

    model = TD3(
        "MlpPolicy", Spaces(), gamma=0.9, seed=seed, device="cpu", buffer_size=100_000, policy_kwargs={"net_arch": [32, 32]},
        learning_rate=configuration["rate"],
    )  # fmt: skip
    model.set_logger(Logger(None, []))
    acted: list[Array] = []

    def score(predicted: Array, requests: Requests, noise: float = 0.0) -> Array:
        states = np.stack([requests.columns[name] for name in STATE], axis=1).astype(np.float32)
        action = model.predict(states, deterministic=True)[0] + noise * random.normal(size=(len(states), count))
        acted.append(np.clip(action, -1.0, 1.0))
        return np.einsum("bk,bck->bc", (acted[-1] + 1) / 2, predicted)

    for number in range(episodes):
        acted.clear()
        found = sessions.next(
            lambda predicted, requests, number=number: score(predicted, requests, 0.3 if number else 2.0)
        )
        actions, order = np.concatenate(acted), np.argsort(found.user, kind="stable")
        for at, then in zip(order, [*order[1:], order[0]]):
            last = found.user[then] != found.user[at] or then == order[0]
            states = found.states[[at]], found.states[[at if last else then]]
            reward, over = np.array([found.rewards[at] / 100]), np.array([last])
            model.replay_buffer.add(*states, actions[[at]], reward, over, [{}])  # type: ignore[union-attr]
        model.train(gradient_steps=50, batch_size=256)
    return sessions.outcome(score)


def violations(result: Result, quick: bool) -> None:
    """Count the scores that fall when one prediction is raised, in about a million pairs (fewer in a quick run).

    Each request has a policy of its own.
    """
    random = np.random.default_rng(0)
    sessions = Sessions(data(WORLD, 0, True)[0], 0)
    rows, count = logged(sessions), len(sessions.tasks)
    settings = SessionCellsSettings(weights=dict.fromkeys(sessions.tasks, 1.0), state=STATE, grid=9, epochs=3)
    fuser = SessionCells(settings).fit(rows)
    bad = pairs = bound = 0
    for _ in range(1 if quick else 8):
        requests = Requests(np.arange(1000), np.arange(1000), {name: random.normal(size=1000) for name in STATE})
        drawn = 3 * random.normal(size=(1000, count, len(STATE) + 1))
        values = random.normal(size=(1000, 30, count))
        bound += int((fuser.actions(requests, drawn) < 0).sum())
        before = fuser.explore(values, requests, drawn)
        for task in range(count):
            raised = values.copy()
            raised[..., task] += 10.0 ** random.uniform(-16, 0, before.shape)
            after = fuser.explore(raised, requests, drawn)
            bad, pairs = bad + int((after < before).sum()), pairs + before.size
    row = {"component": "session_cells", "metric": "violations", "value": bad, "pairs": pairs}
    result.rows.append({**row, "actions below 0": bound})
    result.at_most(f"session_cells: violations in {pairs} pairs", bad, 0)


COMPONENT = Component(
    claim="an outer stage learnt from returns of sessions makes users watch more than the inner stage alone",
    metric="seconds per user",
    arms={
        "xmtf": Arm(cells(True), ({"policy_rate": 10.0}, {"policy_rate": 20.0})),
        "inner stage alone": Arm(cells(False), ({"rate": 0.005}, {"rate": 0.02})),
        "linear, the same policy": Arm(linear_policy, ({"rate": 3.0}, {"rate": 10.0})),
        "linear, cross-entropy method": Arm(cross_entropy, ({"best": 3}, {"best": 5})),
        "linear, TD3": Arm(td3, ({"rate": 1e-3}, {"rate": 3e-4})),
    },
    data=data,
    same_parameters=False,
    exact=violations,
)
