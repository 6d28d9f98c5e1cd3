"""Do A/B tests and off-policy evaluation find the true gains, and do their intervals have the stated coverage?

A/B tests (parts ``shop``, ``null twin`` and ``A/A``). A ranker with text features is compared with the same ranker
without them; the features are made from the texts of each user's last items. Both rankers are trained three times on
the log of a synthetic shop. Then they choose items for new users, who are assigned to one of the two at random. The
shop's response probabilities are known, so the true gain is known too. In the shop, titles reveal the themes of the
items, and the interval of the gain must lie above zero. The null twin is the negative control: the same events, but
with the theme words of the titles permuted among the items. There the interval must contain zero. Shop and twin are
simulated with the same five seeds, and each seed has its own shop, rankers and users. The A/B test is repeated 200
times per seed; on average, at least 92 % of the intervals must contain the true gain. In 200 A/A tests, both groups of
users are served by the same ranker (in the shop with seed 0); 5 % ± 3 percentage points of these tests must be
significant.

Off-policy evaluation (parts ``random → bts`` and ``bts → random``). The Open Bandit sample contains the logs of two
policies, each with 10,000 impressions: a uniformly random one (``random``), and Bernoulli Thompson sampling (``bts``).
The click rate of one policy is estimated from the log of the other by inverse propensity scoring (``ips``), its
self-normalised form (``snips``) and the doubly robust estimator (``dr``). Each interval must contain the click rate in
the estimated policy's own log. In addition, 400 logs are simulated for each of the two parts, with click rates that
were fitted to both real logs, so that the true value is known. The share of intervals that contain it must be close to
95 %. The sample is the folder ``open-bandit-small`` in ``$TAIJI_TEST_DATA``; without it, these parts are left out.

Columns: ``value`` with its 95 % interval from ``low`` to ``high``; ``n``, the number of users (A/B tests) or
impressions (off-policy); ``trainings``, the number of trainings per ranker. ``truth`` is the true gain in clicks per
user, or the click rate in the estimated policy's own log, or the nominal coverage. A full run takes nine minutes on one
core; its results are in ``benchmarks/results/abtest.json``.

    python -m benchmarks.abtest [--quick] [--json FILE]
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from taiji.core.progress import track
from taiji.experiments.offpolicy import (
    Logged,
    cross_fitted_rates,
    dr_terms,
    ips_terms,
    snips_terms,
    value_interval,
)
from taiji.experiments.settings import ABTestSettings
from taiji.experiments.simulate import simulate
from taiji.metrics.bootstrap import resample_weights
from taiji.world.settings import ShopSettings

ITEMS, PLACES = 80, 3
QUICK_SHOP = {"users": 1000, "tail": 2000}
AA_METRICS = ("clicks", "clicks (CUPED)", "click rate", "advertiser value")


def measure(quick: bool) -> Result:
    result = Result()
    closed_loop(result, seeds=[0] if quick else list(range(5)), sizes=QUICK_SHOP if quick else {})
    folder = Path(os.environ.get("TAIJI_TEST_DATA", "")) / "open-bandit-small"
    if os.environ.get("TAIJI_TEST_DATA") and folder.is_dir():
        off_policy(result, folder, repeats=40 if quick else 400, resamples=150 if quick else 400)
    else:
        result.rows.append(
            {
                "part": "off-policy",
                "what": "left out: TAIJI_TEST_DATA does not name a folder with open-bandit-small",
            }
        )
    return result


def closed_loop(result: Result, seeds: list[int], sizes: dict[str, Any]) -> None:
    """Simulate the shop and its null twin with every seed, and add the rows and checks of their A/B and A/A tests."""
    aa: dict[str, list[float]] = {}
    for telling in (True, False):
        world, gains, covered = "shop" if telling else "null twin", [], []
        for seed in seeds:
            found = simulate(ABTestSettings(shop=ShopSettings(telling_text=telling, **sizes)), seed)
            offline = next(
                r for r in found["offline"] if (r["features"], r["group"], r["metric"]) == ("text", "all", "click auc")
            )
            gap, test = offline["difference"], found["ab"]["clicks (CUPED)"]
            gains.append((gap, test))
            covered.append(found["repeats"]["clicks"]["coverage"])
            result.rows.append(
                {
                    "part": world,
                    "what": f"seed {seed}, click AUC gain",
                    "value": gap["value"],
                    "low": gap["low"],
                    "high": gap["high"],
                    "n": offline["n"],
                    "trainings": offline["seeds"],
                }
            )
            result.rows.append(
                {
                    "part": world,
                    "what": f"seed {seed}, clicks a user, A/B",
                    "value": test["difference"],
                    "low": test["low"],
                    "high": test["high"],
                    "n": test["n"],
                    "truth": test["truth"],
                }
            )
            for metric in AA_METRICS:
                aa.setdefault(metric, []).append(found["aa"][metric])
        for name, values in (
            ("click AUC gain", [(g["value"], g["low"], g["high"]) for g, _ in gains]),
            ("A/B clicks a user", [(t["difference"], t["low"], t["high"]) for _, t in gains]),
        ):
            low, high = over_seeds(values)
            if len(seeds) > 1:
                result.rows.append(
                    {
                        "part": world,
                        "what": f"mean over {len(seeds)} seeds, {name}",
                        "value": float(np.mean([v for v, _, _ in values])),
                        "low": low,
                        "high": high,
                    }
                )
            if telling:
                result.at_least(f"shop: low end of the {name}", low, 1e-9)
            else:
                result.at_most(
                    f"null twin: distance of the interval of the {name} from zero", max(low, -high, 0.0), 0.0
                )
        result.at_least(f"{world}: coverage of the true gain by repeated A/B tests", float(np.mean(covered)), 0.92)
    for metric, shares in aa.items():
        result.rows.append({"part": "A/A", "what": f"{metric}: share of 200 tests significant", "value": shares[0]})
        result.at_most(
            f"200 A/A tests, {metric}: distance of the share significant from 5 %",
            abs(shares[0] - 0.05),
            0.03,
        )


def over_seeds(values: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the interval of the mean over two to five seeds (Student's t). For a single seed, return its own interval.

    Args:
        values: (value, low, high) of each seed.
    """
    if len(values) == 1:
        return values[0][1], values[0][2]
    points = np.array([value for value, _, _ in values])
    quantile = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(points)]
    half = quantile * points.std(ddof=1) / math.sqrt(len(points))
    return float(points.mean() - half), float(points.mean() + half)


def off_policy(result: Result, folder: Path, repeats: int, resamples: int) -> None:
    """Estimate the click rate of Thompson sampling from the random policy's log, and the other way round.

    Args:
        result: result to which rows and checks are added.
        folder: folder of the Open Bandit sample.
        repeats: number of simulated logs from which the coverage is measured.
        resamples: number of bootstrap resamples per simulated log.
    """
    logs = {name: _read(folder / f"{name}_all.parquet") for name in ("random", "bts")}
    policies = {"random": np.full((PLACES, ITEMS), 1 / ITEMS), "bts": _frequencies(logs["bts"])}
    rates = _click_rates(logs)
    for source, target in (("random", "bts"), ("bts", "random")):
        log, truth = logs[source], float(logs[target]["click"].mean())
        found = _estimates(
            log["place"],
            log["item"],
            log["click"],
            log["propensity"],
            policies[target],
            resamples=2000,
            seed=0,
        )
        for name, figure in found.items():
            result.rows.append(
                {
                    "part": f"{source} → {target}",
                    "what": f"{name}, real log",
                    **{k: figure[k] for k in ("value", "low", "high", "n")},
                    "truth": truth,
                }
            )
            result.at_most(
                f"{source} → {target}, {name}: distance of the on-policy value from the interval",
                max(figure["low"] - truth, truth - figure["high"], 0.0),
                0.0,
            )
        _coverage(result, source, target, policies, rates, repeats, resamples)


def _coverage(
    result: Result,
    source: str,
    target: str,
    policies: dict[str, Any],
    rates: Any,
    repeats: int,
    resamples: int,
) -> None:
    """Measure the share of intervals that contain the true value, over simulated logs of 10,000 impressions each."""
    # Every action needs a positive probability under the logging policy, so half an impression is added to each.
    logging = policies[source] if source == "random" else _smoothed(policies[source])
    truth = float((policies[target] * rates).sum(axis=1).mean())
    inside: dict[str, list[bool]] = {}
    for repeat in track(range(repeats), f"Off-policy coverage {source} → {target}", unit="logs"):
        rng = np.random.default_rng([repeat, 7])
        place = rng.integers(PLACES, size=10_000)
        item = np.minimum((logging.cumsum(axis=1)[place] < rng.random((10_000, 1))).sum(axis=1), ITEMS - 1)
        click = (rng.random(10_000) < rates[place, item]).astype(float)
        for name, figure in _estimates(
            place, item, click, logging[place, item], policies[target], resamples=resamples, seed=repeat
        ).items():
            inside.setdefault(name, []).append(figure["low"] <= truth <= figure["high"])
        terms = ips_terms(Logged(click, logging[place, item], policies[target][place, item]))
        draws = np.concatenate(
            [weights @ terms / len(terms) for weights in resample_weights(len(terms), resamples, repeat)]
        )
        low, high = np.quantile(draws, [0.025, 0.975])
        inside.setdefault("ips, percentile (not used)", []).append(bool(low <= truth <= high))
    for name, hits in inside.items():
        share = float(np.mean(hits))
        result.rows.append(
            {
                "part": f"{source} → {target}",
                "what": f"{name}, coverage of {repeats} drawn logs",
                "value": share,
                "truth": 0.95,
            }
        )
        if "percentile" not in name:
            slack = 1.96 * math.sqrt(0.95 * 0.05 / repeats) + 0.01
            result.at_most(f"{source} → {target}, {name}: distance of the coverage from 95 %", abs(share - 0.95), slack)


def _estimates(
    place: Any, item: Any, click: Any, propensity: Any, target: Any, *, resamples: int, seed: int
) -> dict[str, Any]:
    log = Logged(click, propensity, target[place, item])
    model = cross_fitted_rates(item, click, ITEMS, seed=seed)
    baseline = (target[place] * model).sum(axis=1)
    every = {
        "ips": ips_terms(log),
        "snips": snips_terms(log),
        "dr": dr_terms(log, model[np.arange(len(item)), item], baseline),
    }
    return {name: value_interval(terms, resamples=resamples, seed=seed) for name, terms in every.items()}


def _read(path: Path) -> dict[str, Any]:
    frame = pl.read_parquet(path, columns=["item_id", "position", "click", "propensity_score"])
    return {
        "item": frame["item_id"].to_numpy().astype(int),
        "place": frame["position"].to_numpy().astype(int) - 1,
        "click": frame["click"].to_numpy().astype(float),
        "propensity": frame["propensity_score"].to_numpy(),
    }


def _counts(log: dict[str, Any], weights: Any = None) -> Any:
    return (
        np.bincount(log["place"] * ITEMS + log["item"], weights=weights, minlength=PLACES * ITEMS)
        .reshape(PLACES, ITEMS)
        .astype(float)
    )


def _frequencies(log: dict[str, Any]) -> Any:
    """Return the share of each item per position in the log of Thompson sampling. It estimates the policy's
    probabilities, averaged over the week of the log."""
    counts = _counts(log)
    return counts / counts.sum(axis=1, keepdims=True)


def _smoothed(policy: Any) -> Any:
    raised = policy + 0.5 / 3300
    return raised / raised.sum(axis=1, keepdims=True)


def _click_rates(logs: dict[str, dict[str, Any]]) -> Any:
    """Return the click rate of every item in every position, from both logs. The rate is shrunk towards the item's rate
    over all positions, and that rate is shrunk towards the overall rate."""
    shown = sum(_counts(log) for log in logs.values())
    clicked = sum(_counts(log, log["click"]) for log in logs.values())
    item = (clicked.sum(axis=0) + 50 * clicked.sum() / shown.sum()) / (shown.sum(axis=0) + 50)
    return (clicked + 30 * item) / (shown + 30)


if __name__ == "__main__":
    run(measure)
