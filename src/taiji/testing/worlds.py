"""Checks of worlds, including those with mechanisms of other packages, and of their twins.

A twin is the same world with one mechanism, or a part of one, switched off.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
from taiji.core.errors import InputError
from taiji.data.schema import validate
from taiji.world.exposure import Exposure
from taiji.world.observation import Choice
from taiji.world.world import World
from taiji.world.world_time import START

DAY = 86_400_000_000


def check_world(make: Callable[[int], World], *, days: int = 2, draws: int = 4000, errors: float = 5.0) -> None:
    """Check that a world is determined by its seed, never uses the future, and reports true expectations.

    Each twin must differ from its world in one mechanism only.

    Args:
        make: function from a seed to a world; a small one (100 users, 300 items) is enough.
        days: length of the compared logs; the first half is the past.
        draws: number of responses drawn per list; their mean must match the truth.
        errors: allowed deviation in standard errors.
    """
    _check_log(make, days)
    world = make(1)
    exposure = _check_step(world)
    _check_truth(world, exposure, draws, errors)
    for name, mechanism in world.mechanisms.items():
        for part in mechanism.twins:
            _check_twin(make(1), name, part)


def _check_log(make: Callable[[int], World], days: int) -> None:
    first, world = make(1).log("random", days), make(1)
    validate(first)
    world.step(Choice(world.observation.candidates.items[:, : world.scenario.slate]))
    again, other = world.log("random", days), make(2).log("random", days)
    for name in ("items", "users", "events"):
        assert getattr(first, name).equals(getattr(again, name)), f"a different table of {name} with the same seed"
    assert not first.events.equals(other.events), "a different seed gave the same events: is the seed used?"
    half = max(days // 2, 1)
    end = pl.lit(START + half * DAY).cast(pl.Datetime("us"))
    past, before = make(1).log("random", half).events, first.events.filter(pl.col("timestamp") < end)
    assert past.equals(before), (
        f"the log of {half} days is not the beginning of the log of {days} days: a future event was used"
    )


def _check_step(world: World) -> Exposure:
    """Serve some steps; check that declared outputs of mechanisms exist and that an unknown item is rejected."""
    for _ in range(5):
        exposure = world.step(Choice(world.observation.candidates.items[:, : world.scenario.slate]))
    for name, mechanism in world.mechanisms.items():
        for kind, wanted, there in (
            ("truths", mechanism.truths, exposure.expected), ("labels", [t.name for t in mechanism.labels], exposure.outcome),
            ("context", mechanism.context, exposure.context), ("bias", mechanism.bias, exposure.display),
        ):  # fmt: skip
            missing = [key for key in wanted if key not in there]
            assert not missing, f"{name} declares {kind} {', '.join(missing)} that no step produces"
    for key, values in {**exposure.expected, **exposure.outcome}.items():
        assert values.shape == exposure.shape, f"{key} has shape {values.shape}, the lists {exposure.shape}"
    for key, values in exposure.expected.items():
        assert np.isfinite(values).all(), f"the expectation of {key} is not finite"
        assert (values[~exposure.shown] == 0).all(), f"the expectation of {key} is not 0 where nothing is shown"
    wrong = world.observation.candidates.items[:, : world.scenario.slate].copy()
    wrong[0, 0] = world.scenario.items
    try:
        world.step(Choice(wrong))
    except InputError:
        return exposure
    raise AssertionError("an item that does not exist was accepted")


def _check_truth(world: World, exposure: Exposure, draws: int, errors: float) -> None:
    lists = exposure.items[:1]
    lists = lists[:, : max(int((lists != NO_ITEM).sum()), 1)]
    user = exposure.user[:1]
    before = {name: values.copy() for name, values in _arrays(world).items()}
    expected = world.truth.expect(user, lists)
    drawn = world.truth.simulate(np.repeat(user, draws), np.repeat(lists, draws, axis=0)).outcome
    for name, values in _arrays(world).items():
        np.testing.assert_array_equal(values, before[name], f"computing the truth changed {name}")
    for name in expected.keys() & drawn.keys():
        happened = np.asarray(drawn[name], dtype=np.float64)
        if np.isnan(happened).any():
            continue  # only some users give this response
        error = np.maximum(happened.std(axis=0), np.sqrt(np.clip(expected[name][0], 1 / draws, 0.05))) / np.sqrt(draws)
        away = np.abs(happened.mean(axis=0) - expected[name][0]) / error
        assert away.max() < errors, (
            f"the truth of {name} is {expected[name][0][away.argmax()]:.4g}, the observed mean is "
            f"{happened.mean(axis=0)[away.argmax()]:.4g}, {away.max():.1f} standard errors away"
        )


def _check_twin(world: World, mechanism: str, part: str) -> None:
    """Check that a world and its twin have the same requests, candidates, and states of all other mechanisms."""
    twin = f"{mechanism}.{part}" if part else mechanism
    other = world.twin(twin)
    one, two = world.reset(), other.reset()
    np.testing.assert_array_equal(one.requests.user, two.requests.user, f"twin {twin}: different users make requests")
    np.testing.assert_array_equal(one.candidates.items, two.candidates.items, f"twin {twin}: different candidates")
    twins = _arrays(other)
    for name, values in _arrays(world).items():
        if not name.startswith(f"{mechanism}."):
            np.testing.assert_array_equal(twins[name], values, f"twin {twin}: different {name}")


def _arrays(world: World) -> dict[str, NDArray[np.generic]]:
    """Return the state arrays of the world (``name``) and of its mechanisms (``mechanism.name``)."""
    found = {name: values for name, values in vars(world).items() if isinstance(values, np.ndarray)}
    for part, mechanism in world.mechanisms.items():
        found |= {f"{part}.{k}": v for k, v in vars(mechanism).items() if isinstance(v, np.ndarray) and k[0] != "_"}
    return found
