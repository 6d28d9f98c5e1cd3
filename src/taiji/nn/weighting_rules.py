"""The rules that turn observations into reward weights: small objects with a JSON state.

A rule says what it has to see (``source``): nothing, the batch's rewards, or the Gram matrix of the rewards' gradients.
Reward rules set the weights of the batch they look at, and so do the peers that pick a descent direction
(``fresh``); POPO's weights depend on earlier batches only, so that they are independent of the noise they multiply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from taiji.core.errors import ConfigError, InputError
from taiji.core.optional import needs
from taiji.nn import objective_weights as functions
from taiji.nn.objective_weights import Vector

Source = Literal["none", "rewards", "gradients"]


@dataclass(frozen=True)
class Observation:
    """Observed quantities of a batch.

    Args:
        rewards: (N, K) with NaN, N = prompts * group.
        group: rollouts a prompt.
        gram: (K, K) Gram matrix of the loss gradients, when it was estimated.
        indicators: (K,) POPO's indicators, when only they were estimated (directional form).
        square_norm: mean over rewards of the squared gradient norm on this batch, noise included.
    """

    rewards: np.ndarray | None = None
    group: int = 1
    gram: np.ndarray | None = None
    indicators: np.ndarray | None = None
    square_norm: float = 0.0


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


class Rule:
    """Base: keeps log w, counts observations, measures how far the weights moved."""

    source: Source = "none"
    fresh: bool = True

    def __init__(self, count: int, options: RuleOptions) -> None:
        for name, value in (("preference", options.preference), ("initial weights", options.initial)):
            if value is not None and (len(value) != count or min(value) <= 0):
                raise ConfigError(
                    f"The {name} do not fit the rewards.", expected=f"{count} positive numbers", found=str(tuple(value))
                )
        self.count, self.options, self.steps = count, options, 0
        self.log_weights = np.log(
            functions.uniform(count) if options.initial is None else functions.normalised(options.initial)
        )

    @property
    def weights(self) -> Vector:
        """Current weights (K,) on the simplex."""
        return np.exp(self.log_weights)

    def observe(self, seen: Observation) -> Reading:
        """Take one observation in; returns the weights that hold now."""
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

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        """New log w and the indicators behind it. The base class never moves."""
        return self.log_weights, None

    def state(self) -> dict[str, Any]:
        """JSON-ready state; floats survive the round trip bit for bit."""
        return {"log_weights": self.log_weights.tolist(), "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.log_weights = np.asarray(state["log_weights"], dtype=np.float64)
        self.steps = int(state["steps"])


def _log(weights: Vector) -> Vector:
    return np.log(np.maximum(weights, 1e-12))


class Popo(Rule):
    """POPO: log w moves along the indicators I_i = <g_i, K sum_k p_k g_k>; ``paper`` raw, ``robust`` averaged and bounded."""

    source: Source = "gradients"
    fresh = False

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.mean_indicators, self.mean_square, self.seen = np.zeros(count), 0.0, 0

    def indicators(self, seen: Observation) -> tuple[Vector, float]:
        if seen.indicators is not None:
            return np.asarray(seen.indicators, dtype=np.float64), seen.square_norm
        return functions.indicator(seen.gram, self.options.preference), seen.square_norm  # type: ignore[arg-type]

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        options = self.options
        raw, square = self.indicators(seen)
        if options.mode == "paper":
            return functions.paper_step(self.log_weights, raw, options.eta / options.mu), raw
        self.seen += 1
        keep, corrected = options.average, 1 - options.average**self.seen
        self.mean_indicators = keep * self.mean_indicators + (1 - keep) * raw
        self.mean_square = keep * self.mean_square + (1 - keep) * square
        new = functions.robust_step(
            self.log_weights,
            self.mean_indicators / corrected,
            self.mean_square / corrected,
            rate=options.rate,
            clip=options.clip,
            floor=options.floor,
            preference=options.preference,
        )
        return new, raw

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "mean_indicators": self.mean_indicators.tolist(),
            "mean_square": self.mean_square,
            "seen": self.seen,
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.mean_indicators, self.mean_square, self.seen = (
            np.asarray(state["mean_indicators"]),
            float(state["mean_square"]),
            int(state["seen"]),
        )


class PopoCovariance(Popo):
    """POPO with the within-group covariance of the rewards for the Gram matrix: no backward pass."""

    source: Source = "rewards"
    fresh = True

    def indicators(self, seen: Observation) -> tuple[Vector, float]:
        covariance = functions.reward_covariance(seen.rewards, seen.group)  # type: ignore[arg-type]
        return functions.indicator(covariance, self.options.preference), float(np.trace(covariance) / self.count)


class PopoLight(Rule):
    """POPO-light: the coefficient of variation of the batch's rewards."""

    source: Source = "rewards"

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        new = functions.coefficient_of_variation(seen.rewards, self.weights)  # type: ignore[arg-type]
        return (self.log_weights if np.array_equal(new, self.weights) else _log(new)), new


class DynamicAverage(Rule):
    """Dynamic weight averaging over batch means, smoothed by the same factor as POPO's averages."""

    source: Source = "rewards"

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.means: list[list[float]] = []

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        mean = np.nan_to_num(functions.moments(seen.rewards)[0])  # type: ignore[arg-type]
        keep = self.options.average
        self.means = [
            *self.means[-1:],
            (mean if not self.means else keep * np.asarray(self.means[-1]) + (1 - keep) * mean).tolist(),
        ]
        if len(self.means) < 2:
            return self.log_weights, None
        return _log(functions.dynamic_average(self.means[0], self.means[1])), None

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
        loss = np.nan_to_num(self.best - mean) + np.nan_to_num(deviation)
        self.log_variances = functions.uncertainty_step(self.log_variances, loss, self.options.rate)
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


@dataclass
class _Library:
    """TorchJD's Gramian weightings, created on first use; they may draw from torch's generator, which is kept apart."""

    name: str
    made: dict[str, Any] = field(default_factory=dict)

    def __call__(self, gram: np.ndarray, seed: int) -> Vector:
        import torch

        if not self.made:
            with needs("peers", where="alignment.weighting"):
                from torchjd import aggregation

                self.made["weighting"] = getattr(aggregation, self.name)()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return np.asarray(
                self.made["weighting"](torch.as_tensor(gram, dtype=torch.float64)).numpy(), dtype=np.float64
            )


class GramPeer(Rule):
    """MGDA, PCGrad or UPGrad: weights from the batch's own Gram matrix, scaled to sum one (the direction is unchanged)."""

    source: Source = "gradients"
    library: ClassVar[str] = ""

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.weighting = _Library(self.library)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        if seen.gram is None:
            raise InputError(
                "This rule needs the whole Gram matrix.",
                found="gram_estimator='directional'",
                fix="use 'same-batch' or 'cross-batch'",
            )
        if not np.trace(seen.gram) > 0:
            return self.log_weights, None
        raw = np.maximum(self.weighting(np.asarray(seen.gram), self.options.seed + self.steps), 0.0)
        return _log(functions.normalised(raw) if raw.sum() > 0 else functions.uniform(self.count)), None


class Mgda(GramPeer):
    """The minimum-norm point of the gradients (Desideri 2012), through TorchJD."""

    library = "MGDAWeighting"


class PcGrad(GramPeer):
    """Gradient surgery (Yu et al. 2020), through TorchJD."""

    library = "PCGradWeighting"


class UpGrad(GramPeer):
    """Projection onto the dual cone (Quinton and Rey 2024), through TorchJD."""

    library = "UPGradWeighting"


RULES: dict[str, type[Rule]] = {
    "fixed": Rule,
    "gdpo": Rule,
    "popo": Popo,
    "popo-light": PopoLight,
    "popo-covariance": PopoCovariance,
    "mgda": Mgda,
    "pcgrad": PcGrad,
    "upgrad": UpGrad,
    "dwa": DynamicAverage,
    "uncertainty": Uncertainty,
    "random": RandomWeights,
}


def make_rule(name: str, count: int, options: RuleOptions) -> Rule:
    """The rule called ``name`` for ``count`` rewards."""
    if name not in RULES:
        raise ConfigError("No such weighting.", expected=", ".join(RULES), found=repr(name))
    return RULES[name](count, options)
