"""Pure functions that compute reward weights, with float64 inputs and outputs.

The weights depend on the Gram matrix G[i, j] = <g_i, g_j> of the gradients of the rewards' losses, or on statistics of
the rewards. POPO and POPO-light are from the paper on Taiji (arXiv 2606.03866). The robust step, the preference, the
covariance form and the minimum-norm check are additions of this package.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]


def uniform(count: int) -> Vector:
    """Return equal weights (K,) that sum to one."""
    return np.full(count, 1.0 / count)


def normalised(weights: ArrayLike) -> Vector:
    """Return positive weights (K,) scaled to sum to one."""
    values = np.asarray(weights, dtype=np.float64)
    return values / values.sum()


def log_normalised(log_weights: ArrayLike) -> Vector:
    """Return log-weights (K,) shifted so that their exponentials sum to one, without overflow."""
    values = np.asarray(log_weights, dtype=np.float64)
    if not np.isfinite(values.max()):
        return np.full_like(values, np.nan)  # no weights can be computed; the calling rule reports the NaN
    values = values - values.max()
    return values - np.log(np.exp(values).sum())


def indicator(gram: ArrayLike, preference: ArrayLike | None = None) -> Vector:
    """Return POPO's indicators I_i = <g_i, sum_k g_k> (K,) from the Gram matrix (K, K).

    With a preference p (K,), which is scaled to sum to one, K * sum_k p_k g_k replaces sum_k g_k, and the weights tend
    to p instead of 1/K. Both sums are equal if p is uniform.
    """
    gram = np.asarray(gram, dtype=np.float64)
    count = len(gram)
    reference = np.ones(count) if preference is None else count * normalised(preference)
    return np.asarray(gram @ reference)


def paper_step(log_weights: ArrayLike, indicators: ArrayLike, rate: float) -> Vector:
    """Return the log-weights after the paper's update w_i <- w_i exp(rate * I_i) / Z, in which ``rate`` is eta / mu and
    Z normalises the sum to one."""
    return log_normalised(np.asarray(log_weights, dtype=np.float64) + rate * np.asarray(indicators, dtype=np.float64))


def robust_step(
    log_weights: ArrayLike,
    indicators: ArrayLike,
    scale: float,
    *,
    rate: float = 0.1,
    clip: float = 0.2,
    floor: float = 0.05,
    preference: ArrayLike | None = None,
) -> Vector:
    """Return the log-weights after two updates: log w changes by rate * (I - mean I) / scale, clipped to +-clip, and
    then w <- (1 - floor) w + floor * preference.

    ``scale`` is an average squared gradient norm, and is common to all rewards. Dividing each gradient by its own norm
    would make both indicators equal at K = 2, and the weights would never change. The mean is subtracted before
    clipping. Normalisation would cancel it anyway, but without the subtraction, all strongly aligned rewards would be
    clipped to the same value. A scale of zero means that there is no gradient, and the weights do not change.
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    if not scale > 0:
        return log_weights
    indicators = np.asarray(indicators, dtype=np.float64)
    step = np.clip(rate * (indicators - indicators.mean()) / scale, -clip, clip)
    weights = np.exp(log_normalised(log_weights + step))
    target = uniform(len(weights)) if preference is None else normalised(preference)
    return np.asarray(np.log((1 - floor) * weights + floor * target))


def coefficient_of_variation(
    rewards: ArrayLike, previous: ArrayLike, epsilon: float = 1e-8, group: int | None = None
) -> Vector:
    """Return POPO-light's weights (K,), which are proportional to std_i / (|mean_i| + epsilon) over the batch of
    rewards (N, K).

    With ``group``, these ratios are computed within each group of ``group`` consecutive rollouts, and are averaged over
    the groups.

    The weights do not change if a reward is scaled, but they *do* change if it is shifted. NaN rewards are ignored. A
    reward with fewer than two values counts as constant. If all rewards are constant, the previous weights are
    returned.
    """
    values = np.asarray(rewards, dtype=np.float64)
    blocks = [values] if group is None else np.split(values, len(values) // group)
    ratios = np.stack([_variation(block, epsilon) for block in blocks])
    counted = np.isfinite(ratios).sum(axis=0)
    spread = np.where(np.isfinite(ratios), ratios, 0.0).sum(axis=0) / np.maximum(counted, 1)
    return normalised(spread) if spread.sum() > 0 else np.asarray(previous, dtype=np.float64)


def _variation(rewards: Vector, epsilon: float) -> Vector:
    """Return the coefficients of variation (K,) of rewards (N, K): 0 if all values are equal, NaN with fewer than two
    values."""
    mean, deviation = moments(rewards)
    spread = np.where(np.nan_to_num(deviation) < 1e-12, 0.0, deviation) / (np.abs(np.nan_to_num(mean)) + epsilon)
    return np.where(np.isfinite(deviation), spread, np.nan)


def moments(rewards: ArrayLike) -> tuple[Vector, Vector]:
    """Return the mean (K,) and population standard deviation (K,) of each column of an array (N, K), ignoring NaN.

    Both are NaN for a column without values. The deviation is NaN for a column with a single value.
    """
    values = np.asarray(rewards, dtype=np.float64)
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, values, 0.0).sum(axis=0) / count
        deviation = np.sqrt((np.where(finite, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean, np.where(count > 1, deviation, np.nan)


def reward_covariance(rewards: ArrayLike, group: int) -> NDArray[np.float64]:
    """Return the covariance (K, K) of rewards (N, K) within the rollouts of a prompt, averaged over prompts, with N =
    prompts * group.

    For a tabular softmax policy, <g_i, g_j> = Cov(r_i, r_j) in the Fisher metric. Therefore, the covariance can replace
    the Gram matrix, and no backward pass is needed. The covariance is unbiased (divisor n - 1). For a pair of rewards,
    only the rollouts that have both rewards are used.
    """
    values = np.asarray(rewards, dtype=np.float64)
    values = values.reshape(-1, group, values.shape[1])
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)
    seen = finite.astype(np.float64)
    pairs = np.einsum("gbi,gbj->gij", seen, seen)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_first = np.einsum("gbi,gbj->gij", filled, seen) / pairs
        product = np.einsum("gbi,gbj->gij", filled, filled) / pairs
        covariance = (product - mean_first * mean_first.transpose(0, 2, 1)) * pairs / (pairs - 1)
    usable = pairs > 1
    total = np.where(usable, covariance, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(usable.sum(axis=0), 1))


def min_norm(gram: ArrayLike) -> Vector:
    """Return the exact weights (K,) on the simplex that minimise the length of sum_i w_i g_i (MGDA). All choices
    of nonzero weights (supports) are tried, so K is at most 12.

    The minimal length sqrt(w' G w) is zero exactly at Pareto-stationary points, regardless of the weighting rule. The
    Gram matrix G is first divided by its largest diagonal entry, because only the ratios of its entries matter. If all
    gradients are zero, the weights are equal.
    """
    given = np.asarray(gram, dtype=np.float64)
    count = len(given)
    if count > 12:
        raise ValueError(f"min_norm enumerates 2^K supports: K <= 12, got {count}")
    if not np.isfinite(given).all():
        raise ValueError("min_norm needs a finite Gram matrix")
    largest = given.diagonal().max()
    if not largest > 0:
        return uniform(count)
    product = given / largest
    best, shortest = uniform(count), np.inf
    for size in range(1, count + 1):
        for support in itertools.combinations(range(count), size):
            block = product[np.ix_(support, support)]
            system = np.block([[block, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            part = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0][:size]
            if part.min() < -1e-9 or abs(part.sum() - 1) > 1e-6:
                continue
            weights = np.zeros(count)
            weights[list(support)] = np.maximum(part, 0.0)
            weights /= weights.sum()
            length = float(weights @ product @ weights)
            if length < shortest * (1 - 1e-12):
                best, shortest = weights, length
    return best


def dynamic_average(earlier: ArrayLike, latest: ArrayLike, temperature: float = 2.0) -> Vector:
    """Return the weights (K,) of dynamic weight averaging (Liu et al. 2019, eq. 7) from earlier and latest mean rewards
    (K,). The weights are proportional to exp(ratio / temperature).

    Deviation: because rewards should grow and losses should fall, the ratio is the earlier mean reward divided by the
    latest one, instead of the latest loss divided by the earlier one. A slowly growing reward thus gets more weight.
    Means are clamped to at least 1e-3, so rewards should be non-negative.
    """
    earlier = np.maximum(np.nan_to_num(np.asarray(earlier, dtype=np.float64)), 1e-3)
    latest = np.maximum(np.nan_to_num(np.asarray(latest, dtype=np.float64)), 1e-3)
    return np.exp(log_normalised(np.clip(earlier / latest, 0.1, 10.0) / temperature))


def uncertainty_step(log_variances: ArrayLike, losses: ArrayLike, rate: float) -> Vector:
    """Return the log-variances s (K,) after one gradient step on sum_k exp(-s_k) L_k + s_k, for losses L (K,) >= 0
    (Kendall et al. 2018, eq. 7 without the factors 1/2)."""
    log_variances = np.asarray(log_variances, dtype=np.float64)
    return np.asarray(log_variances - rate * (1.0 - np.exp(-log_variances) * np.asarray(losses, dtype=np.float64)))
