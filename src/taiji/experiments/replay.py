"""Logged replay: the logged outcomes of those shown items that a ranker would have put first.

If every shown item has a label, a request can be replayed without propensities: each ranker's first ``k`` of the
shown items get their logged outcomes. We assume, as stated in the report, that an item's click depends neither on its
position nor on the other items shown.

Two outcomes are amounts of money. The *advertiser value* is the sum of the prices of clicked and converted items. The
*revenue* is the sum of the fees for clicks, each a share of the item's price.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import Entry, compare, estimate

Array = NDArray[Any]
OUTCOMES = ("clicks", "conversions", "revenue", "advertiser value")


def outcomes(click: Array, conversion: Array, price: Array, fee: float) -> dict[str, Array]:
    """Return the outcomes of each row (N,): clicks, conversions, revenue (fee · price if clicked) and advertiser value
    (price if also converted)."""
    bought = click * conversion
    return {
        "clicks": click,
        "conversions": bought,
        "revenue": fee * price * click,
        "advertiser value": price * bought,
    }


def replay(
    exposures: pl.DataFrame,
    predictions: Mapping[str, pl.DataFrame],
    *,
    k: int = 3,
    fee: float = 0.05,
    by: str = "ctcvr",
    against: str = "none",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the mean outcomes per request for each ranker, if the ranker chooses ``k`` of the shown items.

    Args:
        exposures: user, item, time, click, conversion, price; rows with the same user and time form a request.
        predictions: ranker → frame with the column ``by``, in the rows' order.
        k: items per request; requests with at most ``k`` items leave no choice and are skipped.
        fee: share of an item's price charged for a click.
        by: prediction used for ranking.
        against: reference ranker of paired differences.
        resamples, level, seed: number of bootstrap resamples of users, level of the intervals, and random seed.

    Returns:
        Rows ``{"features", "metric", "value", "low", "high", "n", "difference"?}`` with ``method`` and ``reason`` as in
        :class:`taiji.metrics.intervals.Entry`; if every request has at most ``k`` items, a reason instead of a value.

    Raises:
        InputError: a ranker's prediction or a known price is not a finite number.
    """
    request = exposures.select(pl.struct("user", "time").rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
    size = np.bincount(request)
    eligible = size[request] > k
    part, request = (
        exposures.filter(pl.Series(eligible)),
        np.unique(request[eligible], return_inverse=True)[1],
    )
    if not len(part):
        why = f"too few requests: none offers more than {k} items to choose from"
        nothing: Entry = {"value": None, "low": None, "high": None, "n": 0, "reason": why}
        return [{"features": arm, "metric": name, **nothing} for name in OUTCOMES for arm in predictions]
    user = np.unique(part["user"].to_numpy(), return_inverse=True)[1]
    n_users, owner = int(user.max()) + 1, np.zeros(int(request.max()) + 1, dtype=np.int64)
    owner[request] = user
    requests = np.bincount(owner, minlength=n_users).astype(np.float64)
    with np.errstate(invalid="ignore"):  # non-finite outcomes raise an error below
        earned = outcomes(
            part["click"].to_numpy().astype(float),
            part["conversion"].fill_null(0).to_numpy().astype(float),
            part["price"].fill_null(0.0).to_numpy().astype(float),
            fee,
        )
    for arm, frame in predictions.items():
        if not np.isfinite(frame[by].to_numpy()[eligible]).all():
            raise InputError("A prediction is not a finite number.", where=arm, fix="check the ranker that produced it")
    chosen = {arm: chance_in_first(request, frame[by].to_numpy()[eligible], k) for arm, frame in predictions.items()}
    rows = []
    for name in OUTCOMES:
        if not np.isfinite(earned[name]).all():
            raise InputError("An outcome is not a finite number.", where=name, fix="correct the log's prices")
        statistics = {
            arm: Ratio(np.bincount(user, weights=share * earned[name], minlength=n_users), requests)
            for arm, share in chosen.items()
        }
        for arm, statistic in statistics.items():
            row: dict[str, Any] = {
                "features": arm,
                "metric": name,
                **estimate(statistic, resamples=resamples, level=level, seed=seed),
            }
            if against in statistics and arm != against:
                gap = compare(
                    statistic,
                    statistics[against],
                    resamples=resamples,
                    level=level,
                    seed=seed,
                    identical=np.array_equal(chosen[arm], chosen[against]),
                )
                row["difference"] = {"against": against, **{name: gap[name] for name in gap if name != "n"}}  # type: ignore[literal-required]
            rows.append(row)
    return rows


def chance_in_first(groups: Array, scores: Array, k: int) -> Array:
    """Return the probability (N,) that each row is among the first ``k`` of its group, with ties in random order."""
    order = np.lexsort((-scores, groups))
    g, s = groups[order], scores[order]
    starts = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])])
    sizes = np.diff(np.r_[starts, len(g)])
    above = starts - np.searchsorted(g, g[starts])
    share = np.clip((k - above) / sizes, 0, 1)
    result = np.empty(len(g))
    result[order] = np.repeat(share, sizes)
    return result
