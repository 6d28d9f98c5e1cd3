"""``taiji world run``: A/B test of two policies in a world, compared with the true effect of a full roll-out.

Until the test begins, the scenario's logging policy serves everybody; then users are assigned to the arms at random.
The same world is run twice more, with everybody in the control and with everybody in the treatment. Users and random
draws are the same, so the difference of these two runs is the true effect of a full roll-out. The estimate of the A/B
test minus this effect is the error of the design. Arms that share creators or capacity interfere with each other. In
the co-diverted design, creators are assigned to arms too, and users see only items of creators in their own arm.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import NO_ITEM, Slate
from taiji.core.errors import ConfigError
from taiji.core.progress import track
from taiji.core.settings import Settings
from taiji.experiments.abtest import (
    Comparison,
    aa_tests,
    allows_aa_tests,
    compare_arms,
    cuped,
    minimum_effect,
    power_of,
    sample_size,
)
from taiji.world.draws import Draws
from taiji.world.log import run
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.creators import Creators
from taiji.world.mechanisms.load import Load
from taiji.world.observation import Choice, Observation, SlatePolicy
from taiji.world.outcomes import Totals
from taiji.world.policies import make_policy
from taiji.world.world import World

Array = NDArray[Any]
METRICS = ("reward", "click", "buy", "watch", "pleased", "requests", "active_days")
"""Totals per user that are compared, if the world has them."""
SHARED = {"creators": "creators", "load": "capacity to compute lists"}
"""Mechanisms through which users of one arm affect those of the other."""


class ClosedLoopSettings(Settings):
    """Settings of an A/B test in a world."""

    before: int = Field(default=3, ge=1)
    """Days before the test, served by the logging policy. The users' outcomes on these days are the covariate of
    CUPED."""
    days: int = Field(default=7, ge=1)
    """Days of the test."""
    co_diverted: bool = False
    """Assign creators to arms too, and show users only items of the creators in their own arm."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Level of every interval."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Power in the sample-size calculation."""
    splits: int = Field(default=200, ge=20)
    """Number of A/A tests."""


class Arms:
    """Policy that delegates each request to the policy of the user's arm.

    Args:
        world: world to act in.
        policies: policies of control and treatment.
        treated: (users,) bool, True for users in the treatment.
        start: first day of the test; before it the scenario's logging policy serves.
        item_arm: (items,) bool, the arm of each item's creator; None if every user may see every item.
    """

    def __init__(
        self,
        world: World,
        policies: tuple[str | SlatePolicy, str | SlatePolicy],
        treated: Array,
        start: int,
        item_arm: Array | None = None,
    ) -> None:
        self.world, self.treated, self.start, self.item_arm = world, treated, start, item_arm
        self.logging = make_policy(world.scenario.policy, world)
        self.policies: tuple[SlatePolicy, SlatePolicy] = (
            make_policy(policies[0], world), make_policy(policies[1], world)
        )  # fmt: skip

    def choose(self, observation: Observation, length: int) -> Choice:
        """See :class:`~taiji.world.observation.SlatePolicy`."""
        if (self.world.slot + 1e-9) * self.world.slot_days < self.start:
            return self.logging.choose(observation, length)
        mine = self.treated[observation.requests.user]
        parts = []
        for arm, policy in enumerate(self.policies):
            rows = np.flatnonzero(mine == bool(arm))
            if len(rows):
                asked = observation.take(rows)
                parts.append((rows, policy.choose(self._own(asked, bool(arm)), length)))
        return _joined(len(observation), parts)

    def _own(self, observation: Observation, arm: bool) -> Observation:
        """Return the observation with only the candidates of the arm's creators."""
        if self.item_arm is None:
            return observation
        items = observation.candidates.items
        items = np.where((items != NO_ITEM) & (self.item_arm[items] == arm), items, NO_ITEM)
        items = np.take_along_axis(items, np.argsort(items == NO_ITEM, axis=1, kind="stable"), axis=1)
        pool = observation.available & (self.item_arm == arm)
        return Observation(
            observation.requests, observation.number, observation.place, Slate(items), pool,
            np.full(len(items), pool.sum()), observation.public,
        )  # fmt: skip


def _joined(count: int, parts: list[tuple[Array, Choice]]) -> Choice:
    """Return one choice of ``count`` rows, merged from choices for different rows."""
    width = max(choice.items.shape[1] for _, choice in parts)
    items = np.full((count, width), NO_ITEM, dtype=np.int64)
    chances = np.full((count, width), np.nan)
    display: dict[str, Array] = {}
    row: dict[str, Array] = {}
    for rows, choice in parts:
        items[rows, : choice.items.shape[1]] = choice.items
        chances[rows, : choice.items.shape[1]] = choice.chances
        for name, values in choice.display.items():
            place = display.setdefault(name, np.zeros((count, width), dtype=values.dtype))
            place[rows, : values.shape[1]] = values
        for name, values in choice.row.items():
            row.setdefault(name, np.ones(count, dtype=np.asarray(values).dtype))[rows] = values
    if any(set(choice.display) != set(display) for _, choice in parts):
        raise ConfigError(
            "One of the two policies makes a decision that the other does not make.", where=", ".join(display),
            expected="two policies that make the same kinds of decisions",
            fix="let both policies make it, or neither",
        )  # fmt: skip
    return Choice(items, chances, display, row)


def closed_loop(
    world: World, control: str, treatment: str, settings: ClosedLoopSettings | None = None
) -> dict[str, Any]:
    """Compare two policies in a world.

    Args:
        world: world of the test; it is reset.
        control, treatment: names of policies (:func:`taiji.world.policies.make_policy`).
        settings: settings of the test.

    Returns:
        ``ab`` (metric → comparison per user with the truth, without and with CUPED), ``new`` (the comparisons without
        CUPED for users who first appeared during the test), ``by_day`` (reward of each day, and cumulative reward with
        always-valid intervals), ``aa`` (metric → share of significant A/A tests), ``aa_any_look`` (share of A/A tests of
        the reward that are significant on any day), ``plan`` (sample size and power), ``creators`` (co-diverted only:
        uploads per creator, and ``same_policy``, the same test with the control policy
        in both arms) and ``notes``.
    """
    settings = settings or ClosedLoopSettings()
    users = world.scenario.users
    draws = Draws(world.seed, "assignment")
    treated = draws.uniform("user", np.arange(users)) < 0.5
    content, shares = world.find(Content), [name for name in SHARED if name in world.mechanisms]
    creator_arm = None
    if settings.co_diverted:
        if content is None or "creators" not in world.mechanisms:
            raise ConfigError(
                "The world has no creators for the co-diverted design to assign to arms.", where=f"world {world.scenario.name}",
                expected="the mechanism creators", found=", ".join(world.mechanisms),
            )  # fmt: skip
        load = world.find(Load)
        if load is not None and load.settings.stale:
            raise ConfigError(
                "Cached lists would show users items of creators in the other arm.", where=f"world {world.scenario.name}",
                expected="a world without the mechanism load, or load.stale=false", found="load with cached lists",
            )  # fmt: skip
        creator_arm = draws.uniform("creator", np.arange(content.settings.creators)) < 0.5
    item_arm = None if creator_arm is None else creator_arm[content.creator]
    everybody = np.ones(users, dtype=bool)
    runs: dict[str, Totals] = {}
    uploads: dict[str, Array] = {}
    both, plans = (control, treatment), []
    plans += [
        ("split", both, treated, item_arm),
        ("control", both, ~everybody, None),
        ("treatment", both, everybody, None),
    ]
    if settings.co_diverted:
        plans.append(("same", (control, control), treated, item_arm))
    for name, pair, who, of in track(plans, f"worlds of {world.scenario.name}", unit="runs"):
        world.reset()
        policy = Arms(world, pair, who, settings.before, of)
        runs[name] = Totals(world, settings.before + settings.days)
        for exposure in run(world, policy, settings.before + settings.days):
            runs[name].add(exposure)
        if (creators := world.find(Creators)) is not None:
            uploads[name] = creators.uploads.copy()
    found = {
        "scenario": world.scenario.name, "seed": world.seed, "control": control, "treatment": treatment,
        "users": {"control": int((~treated).sum()), "treatment": int(treated.sum())},
        "before": settings.before, "days": settings.days, "co_diverted": settings.co_diverted,
        **_compared(runs, treated, settings), "notes": _notes(world, shares, settings),
    }  # fmt: skip
    if creator_arm is not None:
        arms = {
            name: compare_arms(uploads[name][creator_arm], uploads[name][~creator_arm], level=settings.level)
            for name in ("split", "same")
        }
        truth = uploads["treatment"] - uploads["control"]
        found["creators"] = {
            "metric": "uploads", **_row(arms["split"]), "truth": float(truth.mean()), "same_policy": _row(arms["same"])
        }  # fmt: skip
    return found


def _row(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return asdict(comparison)


def _notes(world: World, shares: list[str], settings: ClosedLoopSettings) -> list[str]:
    notes = ["This is a simulated world, which says nothing about real users."]
    if shares and not settings.co_diverted:
        what = " and ".join(SHARED[name] for name in shares)
        notes.append(
            f"Both arms share {what}: the estimate may differ from the effect of a roll-out, which is shown next to it."
        )
    if settings.co_diverted:
        notes.append("Creators are assigned to arms as well, so each user sees only half of them during the test.")
        notes.append(
            "The creators of an arm share its users, so the interval of uploads per creator is too narrow: compare the "
            "difference with the difference in the same test with the control policy in both arms."
        )
    return notes


def _compared(runs: dict[str, Totals], treated: Array, settings: ClosedLoopSettings) -> dict[str, Any]:
    """Return the comparisons of all metrics, those by day, the A/A tests and the plan."""
    start, level, planned = settings.before, settings.level, len(treated)
    metrics = [name for name in METRICS if name in runs["split"].sums or name == "active_days"]
    came_before = runs["split"].by_day("requests")[:, :start].sum(axis=1) > 0
    came = runs["split"].by_day("requests").sum(axis=1) > 0
    new = came & ~came_before
    ab: dict[str, Any] = {}
    newcomers: dict[str, Any] = {}
    aa: dict[str, float | None] = {}
    for name in metrics:
        days = {arm: totals.by_day(name) for arm, totals in runs.items()}
        values, before = days["split"][:, start:].sum(axis=1), days["split"][:, :start].sum(axis=1)
        gain = days["treatment"][:, start:].sum(axis=1) - days["control"][:, start:].sum(axis=1)
        truth = {"truth": float(gain.mean()), "truth_error": float(gain.std(ddof=1) / np.sqrt(len(gain)))}
        adjusted = cuped(values, before)
        ab[name] = _row(compare_arms(values[treated], values[~treated], level=level, planned=planned)) | truth
        ab[f"{name} (CUPED)"] = (
            _row(compare_arms(adjusted[treated], adjusted[~treated], level=level, planned=planned)) | truth
        )
        if min((new & treated).sum(), (new & ~treated).sum()) >= 2:
            newcomers[name] = _row(compare_arms(values[new & treated], values[new & ~treated], level=level))
            newcomers[name] |= {"truth": float(gain[new].mean())}
        base = days["control"][:, start:].sum(axis=1)
        aa[name] = _aa_share(base, None, settings)
        covariate = days["control"][:, :start].sum(axis=1)
        aa[f"{name} (CUPED)"] = _aa_share(base, covariate, settings)
    by_day, reward = [], runs["split"].by_day("reward")[:, start:]
    gains = (runs["treatment"].by_day("reward") - runs["control"].by_day("reward"))[:, start:]
    for day in range(reward.shape[1]):
        one = compare_arms(reward[treated, day], reward[~treated, day], level=level)
        total = reward[:, : day + 1].sum(axis=1)
        so_far = compare_arms(total[treated], total[~treated], level=level, planned=planned)
        by_day.append(
            {
                "day": day + 1, "difference": one.difference, "low": one.low, "high": one.high,
                "truth": float(gains[:, day].mean()),
                "cumulative": {**_row(so_far), "truth": float(gains[:, : day + 1].sum(axis=1).mean())},
            }
        )  # fmt: skip
    return {
        "ab": ab, "new": newcomers, "new_users": int(new.sum()), "by_day": by_day, "aa": aa,
        "aa_any_look": _any_look(runs["control"].by_day("reward")[:, start:], settings), "plan": _plan(runs, treated, settings),
    }  # fmt: skip


def _aa_share(values: Array, before: Array | None, settings: ClosedLoopSettings) -> float | None:
    """Return the share of significant A/A tests; None if the values allow none."""
    if not allows_aa_tests(values):
        return None
    return aa_tests(values, before=before, runs=settings.splits, level=settings.level)


def _any_look(days: Array, settings: ClosedLoopSettings) -> float:
    """Return the share of A/A tests in which the always-valid interval of the cumulative reward excludes 0 on some
    day."""
    totals, generator, found = np.cumsum(days, axis=1), np.random.default_rng([17, len(days)]), 0
    for _ in range(settings.splits):
        mask = generator.permutation(len(days)) < len(days) // 2
        for day in range(days.shape[1]):
            looked = compare_arms(totals[mask, day], totals[~mask, day], level=settings.level, planned=len(days))
            if looked.always_low is None or looked.always_high is None:
                continue  # too little data so far
            if not looked.always_low <= 0 <= looked.always_high:
                found += 1
                break
    return found / settings.splits


def _plan(runs: dict[str, Totals], treated: Array, settings: ClosedLoopSettings) -> dict[str, Any]:
    """Return the number of users needed to detect the true effect on the reward, and the power of this test."""
    start = settings.before
    base = runs["control"].by_day("reward")
    adjusted = cuped(base[:, start:].sum(axis=1), base[:, :start].sum(axis=1))
    deviation, arm = float(adjusted.std(ddof=1)), int(min(treated.sum(), (~treated).sum()))
    effect = float((runs["treatment"].by_day("reward") - base)[:, start:].sum(axis=1).mean())
    known = effect != 0 and deviation > 0
    return {
        "metric": "reward (CUPED)", "deviation": deviation, "effect": effect, "power": settings.power,
        "users_an_arm": sample_size(deviation, effect, level=settings.level, power=settings.power) if known else None,
        "power_here": power_of(arm, deviation, effect, level=settings.level) if known else None,
        "minimum_effect": minimum_effect(arm, deviation, level=settings.level, power=settings.power) if deviation else None,
    }  # fmt: skip
