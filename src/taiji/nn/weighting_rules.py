"""The rules that turn observations into reward weights: small objects with a JSON state.

A rule says what it has to see (``source``): nothing, the batch's rewards, or the Gram matrix of the rewards' gradients.
Reward rules set the weights of the batch they look at, and so do the peers that pick a descent direction
(``fresh``); POPO's weights depend on earlier batches only, so that they are independent of the noise they multiply.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from taiji.core.errors import ConfigError, InputError
from taiji.core.optional import needs
from taiji.nn import objective_weights as functions
from taiji.nn.objective_weights import Vector

logger = logging.getLogger(__name__)
Source = Literal["none", "rewards", "gradients"]


@dataclass(frozen=True)
class Observation:
    """Observed quantities of a batch.

    Args:
        rewards: (N, K) with NaN, N = prompts * group.
        group: rollouts a prompt.
        gram: (K, K) Gram matrix of the loss gradients, when it was estimated.
        indicators: (K,) POPO's indicators, when only they were estimated (directional form).
        square_norm: mean over the rewards present of the squared gradient norm on this batch, noise included.
        present: for each reward whether anything in the batch has it; None is read off the rewards, or all.
    """

    rewards: np.ndarray | None = None
    group: int = 1
    gram: np.ndarray | None = None
    indicators: np.ndarray | None = None
    square_norm: float = 0.0
    present: tuple[bool, ...] | None = None

    @property
    def finite(self) -> bool:
        """Return whether everything that was estimated is a number (rewards may be NaN, but not infinite)."""
        estimates = [x for x in (self.gram, self.indicators, np.asarray(self.square_norm)) if x is not None]
        return all(np.isfinite(x).all() for x in estimates) and not (
            self.rewards is not None and np.isinf(self.rewards).any()
        )

    def there(self, count: int) -> np.ndarray:
        """Bool (K,): rewards that something in the batch has."""
        if self.present is not None:
            return np.asarray(self.present, dtype=bool)
        return np.ones(count, dtype=bool) if self.rewards is None else np.isfinite(self.rewards).any(axis=0)


@dataclass(frozen=True)
class Reading:
    """Result of a rule: weights (K,), indicators (K,) or None, and max |change of log w|."""

    weights: Vector
    indicators: Vector | None
    delta: float


@dataclass
class RuleOptions:
    """Everything a rule may need besides observations; see :class:`ParetoGRPOConfig` for the meaning of each."""

    mode: str = "robust"
    preference: tuple[float, ...] | None = None
    initial: tuple[float, ...] | None = None
    rate: float = 0.1
    clip: float = 0.2
    floor: float = 0.05
    average: float = 0.9
    eta: float = 1.0
    mu: float = 1.0
    warmup: int = 0
    seed: int = 0
    statistics: str = "batch"

    def __post_init__(self) -> None:
        for name, value, right, expected in (
            ("weight_step", self.rate, self.rate >= 0, "at least 0"),
            ("weight_clip", self.clip, self.clip > 0, "more than 0"),
            ("weight_floor", self.floor, 0 <= self.floor <= 1, "between 0 and 1"),
            ("weight_average", self.average, 0 <= self.average < 1, "at least 0 and less than 1"),
            ("popo_eta", self.eta, self.eta >= 0, "at least 0"),
            ("popo_mu", self.mu, self.mu > 0, "more than 0"),
            ("weight_warmup", self.warmup, self.warmup >= 0, "at least 0"),
        ):
            if not (np.isfinite(value) and right):
                raise ConfigError(
                    "An option of the reward weights is out of range.", where=name, expected=expected, found=str(value)
                )


class Rule:
    """Base: keeps log w, counts observations, measures how far the weights moved.

    A reward that nothing in a batch has keeps its weight and its averages, and the others share the rest among themselves. An
    observation that is not finite is skipped, counted (``skipped``) and logged; it moves nothing.

    Attributes:
        source: the observation that it needs.
        fresh: whether the weights hold for the batch that they were made from.
        steered: whether it knows a preference.
    """

    source: Source = "none"
    fresh: bool = True
    steered: bool = False

    def __init__(self, count: int, options: RuleOptions) -> None:
        for name, value in (("preference", options.preference), ("reward_weights", options.initial)):
            if value is not None and (len(value) != count or not min(value) > 0 or not np.isfinite(value).all()):
                raise ConfigError(
                    f"The numbers of {name} do not fit the rewards.",
                    where=name,
                    expected=f"{count} positive numbers",
                    found=str(tuple(value)),
                )
        if options.preference is not None and not self.steered:
            raise ConfigError(
                f"{type(self).__name__} does not know a preference.",
                where="preference",
                expected="None",
                found=str(tuple(options.preference)),
                fix="set reward_weights for constant weights, or take the weighting 'popo' or 'popo-covariance'",
            )
        self.count, self.options, self.steps, self.skipped = count, options, 0, 0
        self.log_weights = np.log(
            functions.uniform(count) if options.initial is None else functions.normalised(options.initial)
        )

    @property
    def weights(self) -> Vector:
        """Current weights (K,) on the simplex."""
        return np.exp(self.log_weights)

    def observe(self, seen: Observation) -> Reading:
        """Take one observation in; returns the weights that hold now."""
        if not seen.finite and self.options.mode != "paper":
            return self.skip()
        before, indicators = self.log_weights, None
        self.steps += 1
        if self.steps > self.options.warmup or self.source != "gradients":
            new, indicators = self.update(seen)
            if not np.isfinite(new).all():
                raise InputError(
                    "The reward weights are no longer finite.",
                    found=str(np.exp(new)),
                    fix="check the rewards for infinities; use popo_mode='robust'",
                )
            self.log_weights = new
        return Reading(self.weights, indicators, float(np.abs(self.log_weights - before).max()))

    def skip(self) -> Reading:
        """Pass over an observation that is not finite; returns the weights as they are."""
        self.skipped += 1
        logger.warning(
            "A batch's rewards or gradients are not finite: the reward weights stay as they are (skipped so far: %d).",
            self.skipped,
        )
        return Reading(self.weights, None, 0.0)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        """New log w and the indicators behind it. The base class never moves."""
        return self.log_weights, None

    def among(self, there: np.ndarray, log_shares: Vector) -> Vector:
        """New log w (K,) when the rewards present, bool (K,), divide what they had by ``log_shares`` and the others keep theirs."""
        if there.all():
            return log_shares
        new = self.log_weights.copy()
        if there.any():
            new[there] = log_shares + np.log(self.weights[there].sum())
        return new

    def state(self) -> dict[str, Any]:
        """JSON-ready state; floats survive the round trip bit for bit."""
        return {"log_weights": self.log_weights.tolist(), "steps": self.steps, "skipped": self.skipped}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.log_weights = np.asarray(state["log_weights"], dtype=np.float64)
        self.steps, self.skipped = int(state["steps"]), int(state["skipped"])


def _log(weights: Vector) -> Vector:
    return np.log(np.maximum(weights, 1e-12))


JUMP = 2.0
"""Change of log w in one raw step that is worth a warning: a weight seven times or a seventh of what it was."""


class Popo(Rule):
    """POPO: log w moves along the indicators I_i = <g_i, K sum_k p_k g_k>; ``paper`` raw, ``robust`` averaged and bounded."""

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
        if there.sum() < 2:  # nothing to choose between
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
        # Without their mean, which cancels in the step, what is averaged does not depend on who else was present.
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
    """POPO with the within-group covariance of the rewards for the Gram matrix: no backward pass."""

    source: Source = "rewards"
    fresh = True

    def indicators(self, seen: Observation) -> tuple[Vector, float]:
        covariance = functions.reward_covariance(seen.rewards, seen.group)  # type: ignore[arg-type]
        square = float(np.trace(covariance) / max(seen.there(self.count).sum(), 1))
        return functions.indicator(covariance, self.options.preference), square


class PopoLight(Rule):
    """POPO-light: the coefficient of variation of the rewards, over the batch or averaged over groups (``statistics``)."""

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
        moved = self.among(there, _log(new))
        return moved, np.exp(moved)

    def _check_origin(self, rewards: np.ndarray, numbers: np.ndarray) -> None:
        """Warn once of a reward with values on both sides of zero: its mean says where the origin is, not how good the rollouts are."""
        for number, values in zip(numbers.tolist(), rewards.T):
            seen = values[np.isfinite(values)]
            if number not in self._told and seen.min() < 0 < seen.max():
                self._told.add(number)
                logger.warning(
                    "Reward %d has values on both sides of zero: popo-light divides by its mean (%.3g), so a centred reward takes nearly "
                    "all of the weight. Shift it so that zero is its worst value, or use another weighting.",
                    number,
                    seen.mean(),
                )


class DynamicAverage(Rule):
    """Dynamic weight averaging over batch means, smoothed by the same factor as POPO's averages."""

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.means: list[list[float]] = []

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        mean, keep = functions.moments(seen.rewards)[0], self.options.average  # type: ignore[arg-type]
        there = np.isfinite(mean)
        if not there.all():  # what the batch does not have stays where it was
            mean = np.where(there, mean, self.means[-1] if self.means else 0.0)
        self.means = [
            *self.means[-1:],
            (mean if not self.means else keep * np.asarray(self.means[-1]) + (1 - keep) * mean).tolist(),
        ]
        if len(self.means) < 2:
            return self.log_weights, None
        shares = functions.dynamic_average(np.asarray(self.means[0])[there], np.asarray(self.means[1])[there])
        return self.among(there, _log(shares)), None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "means": self.means}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.means = state["means"]


class Uncertainty(Rule):
    """Uncertainty weighting; the loss of a reward is its distance to the best value seen, plus its deviation (kept positive)."""

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
        return functions.log_normalised(-self.log_variances), None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "log_variances": self.log_variances.tolist(), "best": self.best.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.log_variances, self.best = np.asarray(state["log_variances"]), np.asarray(state["best"])


class RandomWeights(Rule):
    """Random loss weighting (Lin et al. 2021): uniform on the simplex, drawn from (seed, step), so that it needs no state."""

    source: Source = "rewards"

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        return _log(np.random.default_rng([self.options.seed, self.steps]).dirichlet(np.ones(self.count))), None


class Feedback(Rule):
    """Raise the weight of an objective that became worse and lower that of one that became better (UMRE, arXiv 2508.07613), then normalise.

    The measure of an objective is what the observation has as ``indicators`` (UMRE: the UAUC on validation data), else the batch's mean
    reward. A step multiplies a weight by exp(± rate); equal values leave it. No Pareto point is claimed.
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


@dataclass
class _Library:
    """TorchJD's Gramian weightings, created on first use; they may draw from torch's generator, which is kept apart."""

    name: str
    options: dict[str, float]
    made: dict[str, Any] = field(default_factory=dict)

    def __call__(self, gram: np.ndarray, seed: int) -> Vector:
        import torch

        if not self.made:
            with needs("peers", where="alignment.weighting"):
                from torchjd import aggregation

                self.made["weighting"] = getattr(aggregation, self.name)(**self.options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return np.asarray(
                self.made["weighting"](torch.as_tensor(gram, dtype=torch.float64)).numpy(), dtype=np.float64
            )


class GramPeer(Rule):
    """A peer of TorchJD: weights from the batch's own Gram matrix, scaled to sum one (the direction is unchanged)."""

    source: Source = "gradients"
    library: ClassVar[str] = ""
    arguments: ClassVar[dict[str, float]] = {}

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.weighting = _Library(self.library, self.arguments)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        if seen.gram is None:
            raise InputError(
                "This rule needs the whole Gram matrix.",
                found="gram_estimator='directional'",
                fix="use 'same-batch' or 'cross-batch'",
            )
        there = seen.there(self.count)
        block = np.asarray(seen.gram)[np.ix_(there, there)]
        if not np.trace(block) > 0:
            return self.log_weights, None
        raw = np.maximum(self.weighting(block / np.trace(block), self.options.seed + self.steps), 0.0)
        shares = functions.normalised(raw) if raw.sum() > 0 else functions.uniform(len(block))
        return self.among(there, _log(shares)), None


class Mgda(GramPeer):
    """The minimum-norm point of the gradients (Desideri 2012), through TorchJD."""

    library = "MGDAWeighting"


class PcGrad(GramPeer):
    """Gradient surgery (Yu et al. 2020), through TorchJD."""

    library = "PCGradWeighting"


class UpGrad(GramPeer):
    """Projection onto the dual cone (Quinton and Rey 2024), through TorchJD."""

    library = "UPGradWeighting"


class FairGrad(GramPeer):
    """Proportional fairness, through TorchJD: w_i (G w)_i = 1 (Nash-MTL, Navon et al. 2022; FairGrad, Ban and Ji 2024, at alpha = 1)."""

    library = "FairGradWeighting"
    arguments: ClassVar[dict[str, float]] = {"alpha": 1.0}


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
    """The rule called ``name`` for ``count`` rewards."""
    if name not in RULES:
        raise ConfigError("No such weighting.", expected=", ".join(RULES), found=repr(name))
    return RULES[name](count, options)
