"""Rules that turn observations of batches into reward weights. A rule is a small object with a JSON state.

A rule declares the observation that it needs (``source``): none, the rewards of the batch, or the Gram matrix of the
rewards' gradients. If ``fresh`` is True, the weights apply to the batch that the rule observes. POPO's weights are not
fresh. They depend only on earlier batches, so they are independent of the noise of the gradients that they multiply.
The weights of POPO with the covariance are fresh.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from taiji.core.errors import ConfigError
from taiji.nn import objective_weights as functions
from taiji.nn.library_rules import FairGrad, Mgda, PcGrad, UpGrad
from taiji.nn.objective_rule import Observation, Reading, Rule, RuleOptions, Source, log_of
from taiji.nn.objective_weights import Vector

logger = logging.getLogger(__name__)
__all__ = ["RULES", "Observation", "Reading", "Rule", "RuleOptions", "Source", "make_rule"]


JUMP = 2.0
"""Change of log w in one raw step beyond which a warning is logged. It corresponds to a factor of seven."""


class Popo(Rule):
    """POPO: log w moves along the indicators I_i = <g_i, K sum_k p_k g_k>, for the gradients g of K rewards and a
    preference p (1 / K by default). In mode ``paper``, the indicators are used as they are; in mode ``robust``, they
    are averaged and the steps are bounded."""

    source: Source = "gradients"
    fresh = False
    steered = True

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.mean_indicators, self.mean_square = np.zeros(count), 0.0
        self.seen = np.zeros(count, dtype=np.int64)
        self.batches = 0

    def indicators(self, seen: Observation) -> tuple[Vector, float]:
        if seen.indicators is not None:
            return np.asarray(seen.indicators, dtype=np.float64), seen.square_norm
        return functions.indicator(seen.gram, self.options.preference), seen.square_norm  # type: ignore[arg-type]

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        options, there = self.options, seen.there(self.count)
        raw, square = self.indicators(seen)
        if there.sum() < 2:  # there are no weights to shift between rewards
            return self.log_weights, raw
        before = self.log_weights[there]
        if options.mode == "paper":
            shares = functions.paper_step(before, raw[there], options.eta / options.mu)
            moved = float(np.abs(shares - functions.log_normalised(before)).max())
            if moved > JUMP:
                logger.warning(
                    "The raw update has changed log w by %.1f in one step: lower popo_eta / popo_mu, or use popo_mode='robust'.",
                    moved,
                )
            return self.among(there, shares), raw
        self.batches += 1
        self.seen[there] += 1
        keep = options.average
        # The mean would cancel in the step anyway. It is subtracted so that the average of a reward does not depend on
        # which other rewards were present.
        centred = raw[there] - raw[there].mean()
        self.mean_indicators[there] = keep * self.mean_indicators[there] + (1 - keep) * centred
        self.mean_square = keep * self.mean_square + (1 - keep) * square
        target = functions.uniform(self.count) if options.preference is None else np.asarray(options.preference)
        shares = functions.robust_step(
            before if there.all() else functions.log_normalised(before),
            self.mean_indicators[there] / (1 - keep ** self.seen[there]),
            self.mean_square / (1 - keep**self.batches),
            rate=options.rate,
            clip=options.clip,
            floor=options.floor,
            preference=target[there],
        )
        return self.among(there, shares), raw

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "mean_indicators": self.mean_indicators.tolist(),
            "mean_square": self.mean_square,
            "seen": self.seen.tolist(),
            "batches": self.batches,
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.mean_indicators, self.mean_square = np.asarray(state["mean_indicators"]), float(state["mean_square"])
        self.seen, self.batches = np.asarray(state["seen"], dtype=np.int64), int(state["batches"])


class PopoCovariance(Popo):
    """POPO with the within-group covariance of the rewards instead of the Gram matrix. It needs no backward pass."""

    source: Source = "rewards"
    fresh = True

    def indicators(self, seen: Observation) -> tuple[Vector, float]:
        covariance = functions.reward_covariance(seen.rewards, seen.group)  # type: ignore[arg-type]
        square = float(np.trace(covariance) / max(seen.there(self.count).sum(), 1))
        return functions.indicator(covariance, self.options.preference), square


class PopoLight(Rule):
    """POPO-light: each weight is proportional to the reward's coefficient of variation, over the batch or averaged over
    groups (option ``statistics``)."""

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self._told: set[int] = set()

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        there = seen.there(self.count)
        rewards = np.asarray(seen.rewards)[:, there]
        self._check_origin(rewards, np.flatnonzero(there))
        before = functions.normalised(self.weights[there]) if there.any() else self.weights[there]
        group = seen.group if self.options.statistics == "group" else None
        new = functions.coefficient_of_variation(rewards, before, group=group)
        if np.array_equal(new, before):
            return self.log_weights, self.weights
        moved = self.among(there, log_of(new))
        return moved, np.exp(moved)

    def _check_origin(self, rewards: np.ndarray, numbers: np.ndarray) -> None:
        """Log one warning for each reward with values on both sides of zero. The mean of such a reward depends on the
        choice of origin rather than on the quality of the rollouts."""
        for number, values in zip(numbers.tolist(), rewards.T):
            seen = values[np.isfinite(values)]
            if number not in self._told and seen.min() < 0 < seen.max():
                self._told.add(number)
                logger.warning(
                    "Reward %d has values on both sides of zero: popo-light divides by its mean (%.3g), so a centred reward gets nearly "
                    "all of the weight. Shift it so that zero is its worst value, or use another weighting.",
                    number,
                    seen.mean(),
                )


class DynamicAverage(Rule):
    """Dynamic weight averaging of the batch means of the rewards. The means are smoothed by the same factor as POPO's
    averages."""

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.means: list[Vector] = []
        """Averages after each of the last two batches, NaN for a reward that has not yet occurred in any batch."""

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        mean, keep = functions.moments(seen.rewards)[0], self.options.average  # type: ignore[arg-type]
        there = np.isfinite(mean)
        if not self.means:
            self.means = [mean]
            return self.log_weights, None
        if not there.any():
            return self.log_weights, None
        last = self.means[-1]
        mean = np.where(there, mean, last)  # a reward that is missing from the batch keeps its average
        self.means = [last, np.where(np.isnan(last), mean, keep * last + (1 - keep) * mean)]
        earlier, latest = self.means[0][there], self.means[1][there]
        shares = functions.dynamic_average(np.where(np.isnan(earlier), latest, earlier), latest)
        return self.among(there, log_of(shares)), None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "means": [[None if np.isnan(x) else x for x in m.tolist()] for m in self.means]}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.means = [np.array(mean, dtype=np.float64) for mean in state["means"]]


class Uncertainty(Rule):
    """Uncertainty weighting (Kendall et al. 2018).

    The loss of a reward is its best value so far minus its batch mean, plus its standard deviation. Thus, no loss is
    negative.
    """

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.log_variances, self.best = np.zeros(count), np.full(count, -1e300)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        mean, deviation = functions.moments(seen.rewards)  # type: ignore[arg-type]
        highest = np.nanmax(np.where(np.isfinite(seen.rewards), seen.rewards, -1e300), axis=0)  # type: ignore[arg-type]
        self.best = np.maximum(self.best, highest)
        loss, there = np.nan_to_num(self.best - mean) + np.nan_to_num(deviation), np.isfinite(mean)
        moved = functions.uncertainty_step(self.log_variances, loss, self.options.rate)
        self.log_variances = np.where(there, moved, self.log_variances)
        if not there.any():
            return self.log_weights, None
        return self.among(there, functions.log_normalised(-self.log_variances[there])), None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "log_variances": self.log_variances.tolist(), "best": self.best.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.log_variances, self.best = np.asarray(state["log_variances"]), np.asarray(state["best"])


class RandomWeights(Rule):
    """Random loss weighting (Lin et al. 2021). The weights are uniform on the simplex, and are drawn from a generator
    seeded by (seed, step), so that no further state is needed. A reward that is missing from a batch gets a new weight,
    too.
    """

    source: Source = "rewards"

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        return log_of(np.random.default_rng([self.options.seed, self.steps]).dirichlet(np.ones(self.count))), None


class Feedback(Rule):
    """Rule that raises the weights of objectives that got worse, lowers the weights of objectives that got better, and
    then normalises (UMRE, arXiv 2508.07613).

    An objective is measured by the observation's ``indicators`` if these are given; the monotone ensemble passes UMRE's
    UAUC (AUC within users) on validation data. Otherwise, it is measured by the batch's mean reward, as in alignment,
    where the rule serves for comparison and also reacts to noise between batches. A step multiplies a weight by
    exp(± rate), and leaves it unchanged if the value is equal. Convergence to a Pareto point is not claimed.
    """

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.last: list[float] = [float("nan")] * count

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        now = functions.moments(seen.rewards)[0] if seen.indicators is None else np.asarray(seen.indicators)  # type: ignore[arg-type]
        last, there = np.asarray(self.last), np.isfinite(now)
        self.last = np.where(there, now, last).tolist()
        moved = np.where(there & np.isfinite(last), np.sign(last - now), 0.0)
        if not there.any():
            return self.log_weights, None
        return self.among(there, functions.log_normalised((self.log_weights + self.options.rate * moved)[there])), None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "last": [None if np.isnan(value) else value for value in self.last]}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.last = [float("nan") if value is None else value for value in state["last"]]


RULES: dict[str, type[Rule]] = {
    "fixed": Rule,
    "gdpo": Rule,
    "popo": Popo,
    "popo-light": PopoLight,
    "popo-covariance": PopoCovariance,
    "mgda": Mgda,
    "pcgrad": PcGrad,
    "upgrad": UpGrad,
    "fairgrad": FairGrad,
    "dwa": DynamicAverage,
    "uncertainty": Uncertainty,
    "random": RandomWeights,
    "feedback": Feedback,
}


def make_rule(name: str, count: int, options: RuleOptions) -> Rule:
    """Return the rule ``name`` for ``count`` rewards."""
    if name not in RULES:
        raise ConfigError("There is no such weighting.", expected=", ".join(RULES), found=repr(name))
    return RULES[name](count, options)
