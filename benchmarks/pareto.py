"""Do POPO's adaptive reward weights end where the theory says, and are they better than fixed weights and other rules?

Column ``environment``, cheapest first. Each has K = 2 rewards (quadratics also 3) with weights w that sum to 1:

- ``quadratics``: losses with exact gradients, for which theta(w), the minimum of the losses weighted by w, is known.
- ``bandit``: a softmax policy with a KL penalty towards the uniform policy, and exact gradients. *Scale* is the factor
  of reward 2. POPO's *indicators* (each reward's gradient times the sum of the gradients) include the KL penalty (*in*,
  *inside*) or not (*out*, *outside*). *Raw* is the paper's update, *robust* the default one, *floor* the default one
  with ``floor=0.1``. ``KL-free bandit``: without the penalty.
- ``contextual``, ``noisy bandit``: a policy with sampled rollouts; indicators are computed within one batch, or across
  its two halves.
- ``tiny LM``: a small language model under the real trainer, all arms with equal steps and seeds, among them 11 fixed
  weights.
- ``ml-latest-small``: a softmax policy over a user's candidates (if TAIJI_TEST_DATA has the log), also with 11 fixed
  weights.

Columns: ``TV``, total variation distance between policies (0: equal); ``min w``, smaller weight at the end; ``r1``,
``r2``, ``E[…]``, final rewards or their expectations; ``w1``, final weight of reward 1; ``worst gain``, the smaller of
the two rewards' gains since the start, with a 95 % interval over seeds; ``gain over worst fixed`` (lower end: ``its
low``), the worst gain minus the one of the worst fixed weights; ``min-norm residual``, 0 at Pareto-stationary points;
``hypervolume of the point / sweep's``, the area that the end point dominates, divided by the area that the end points
of all fixed weights dominate; ``distance to front``, of the end point from the front of the fixed weights; ``seconds /
fixed``, training time over that of equal fixed weights. In ``contextual``, ``I same`` and ``I cross`` are the sampled
indicator divided by the true one (``later``: after 600 steps), and ``I snr …`` is its mean over its standard deviation.
The full run takes half an hour on two cores, and draws docs/figures/pareto-*.svg.

    python -m benchmarks.pareto [--quick] [--json benchmarks/results/pareto.json]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.environments import exact, figures, language, recommendation, sampled
from benchmarks.harness import Result, run
from taiji.alignment.front import hypervolume
from taiji.alignment.settings import Weighting
from taiji.core.progress import track
from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
ORIGIN = (0.0, 0.0)
"""Reference point of the tiny LM's hypervolumes, which are areas that end points dominate."""
LANGUAGE_RULES = tuple(name for name in get_args(Weighting) if name != "fixed")
SWEEP = np.linspace(0, 1, 11)
SCALED = ("fixed", "popo", "popo-light", "popo-covariance", "gdpo")
"""Rules that are also trained with reward 2 multiplied by 3."""
VARIANTS: dict[str, dict[str, Any]] = {
    "popo directional": {"weighting": "popo", "gram_estimator": "directional"},
    "popo same-batch": {"weighting": "popo", "gram_estimator": "same-batch"},
    "popo every 2nd step": {"weighting": "popo", "weight_every": 2},
    "popo trl": {"weighting": "popo", "aggregation": "trl"},
    "popo mean-only": {"weighting": "popo", "scale_rewards": "none"},
    "popo linear": {"weighting": "popo", "aggregation": "linear"},
    "popo linear, mean-only": {"weighting": "popo", "aggregation": "linear", "scale_rewards": "none"},
    "popo-light group": {"weighting": "popo-light", "light_statistics": "group"},
    "fixed 0.5, common": {"weighting": "fixed", "aggregation": "common", "reward_weights": [0.5, 0.5]},
    "fixed 0.5, mean-only": {"weighting": "fixed", "scale_rewards": "none", "reward_weights": [0.5, 0.5]},
}


def interval(values: np.ndarray | list[float]) -> dict[str, float]:
    """Return the mean over seeds with its 95 % t interval."""
    values = np.asarray(values, dtype=float)
    half = T95.get(len(values) - 1, 2.0) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"value": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half)}


def measure(quick: bool) -> Result:
    """Run all environments, the cheapest first."""
    result = Result()
    seeds = range(1) if quick else range(5)
    quadratics(result)
    charts = bandits(result, seeds, 2_000 if quick else 20_000)
    kl_free(result, seeds, 2_000 if quick else 20_000)
    charts += noise(result, seeds, 300 if quick else 800, 500 if quick else 4_000)
    if not quick:
        figures.save(FIGURES / "pareto-weights.svg", charts)
    tiny_language_model(result, quick)
    recommendation.measure(result, quick, interval, FIGURES)
    return result


def quadratics(result: Result) -> None:
    """Check where weights w and parameters theta end.

    POPO must reach equal weights from any initial weights w0. With fixed weights, theta must reach theta(w0). POPO with
    a preference p must reach w = p and theta(p).
    """
    problems = {
        2: exact.Quadratics(np.array([1.0, 4.0]), np.array([[0.0, 0.0], [1.0, 2.0]])),
        3: exact.Quadratics(np.array([1.0, 2.0, 4.0]), np.array([[0.0, 0.0], [1.0, 0.0], [0.3, 1.5]])),
    }
    worst = {"popo": 0.0, "fixed": 0.0, "preference": 0.0}
    for count, problem in problems.items():
        for start in np.random.default_rng(0).dirichlet(np.ones(count) * 0.7, 6).clip(0.02):
            initial, target = tuple(start / start.sum()), np.full(count, 1 / count)
            for options in (RuleOptions(mode="paper", eta=0.02, initial=initial), RuleOptions(initial=initial)):
                path = exact.descend(problem, "popo", options, steps=4_000, rate=0.05)
                worst["popo"] = max(
                    worst["popo"],
                    np.abs(path.weights[-1] - target).max(),
                    np.abs(path.theta - problem.solution(target)).max(),
                )
            path = exact.descend(problem, "fixed", RuleOptions(initial=initial), steps=2_000, rate=0.05)
            worst["fixed"] = max(worst["fixed"], np.abs(path.theta - problem.solution(np.array(initial))).max())
            path = exact.descend(problem, "popo", RuleOptions(preference=initial), steps=8_000, rate=0.05)
            worst["preference"] = max(
                worst["preference"],
                np.abs(path.weights[-1] - initial).max(),
                np.abs(path.theta - problem.solution(np.array(initial))).max(),
            )
    for eta in (0.02, 0.1):  # with K = 3, the raw update does not converge if its step is too large
        path = exact.descend(problems[3], "popo", RuleOptions(mode="paper", eta=eta), steps=8_000, rate=0.05)
        row = {"environment": "quadratics, K = 3", "rule": "popo raw", "setting": f"eta / mu {eta}"}
        spread = float(np.ptp(path.weights[-2000:], axis=0).max())
        result.rows.append(row | {"spread of w over the last 2,000 steps": spread})
    result.at_most("quadratics: POPO to equal weights from any start, worst error", worst["popo"], 1e-6)
    result.at_most("quadratics: fixed weights to theta(w0), worst error", worst["fixed"], 1e-9)
    result.at_most("quadratics: preference p to theta(p) and w = p, worst error", worst["preference"], 1e-3)


def bandits(result: Result, seeds: range, steps: int) -> list[figures.Chart]:
    """Measure POPO on bandits with a KL penalty for scales 1, 3 and 10, with the penalty inside and outside the
    indicators, and its peers for scales 1 and 3."""
    beta, charts = 0.2, []
    found: dict[str, list[float]] = {}
    for seed in seeds:
        rewards = exact.two_rewards(seed)
        chart = figures.Chart("KL-regularised bandit, seed 0: weight of reward 1", "step", "w1", bounds=(0, 1))
        for scale in (1, 3, 10):
            for inside in (True, False):
                for label, options in {
                    "raw": RuleOptions(mode="paper", eta=1.0),
                    "floor": RuleOptions(floor=0.1),
                }.items():
                    problem = exact.Bandit(rewards * np.array([[1.0], [scale]]), beta, inside)
                    path = exact.descend(problem, "popo", options, steps=steps, rate=0.5)
                    name = f"{scale}x {'in' if inside else 'out'} {label}"
                    distance = 0.5 * np.abs(problem.policy(path.theta) - problem.gibbs(np.array([0.5, 0.5]))).sum()
                    for key, value in (
                        ("tv", distance),
                        ("half", path.weights[steps // 2].min()),
                        ("end", path.weights[-1].min()),
                        ("w1", path.weights[-1, 0]),
                    ):
                        found.setdefault(f"{key} {name}", []).append(float(value))
                    if seed == 0 and (label == "raw" or scale == 10):
                        shown = np.unique(np.geomspace(1, steps, 60).astype(int))
                        chart.lines.append((name, np.log10(shown), path.weights[shown, 0]))
        if seed == 0:
            chart.x = "log10 step"
            charts.append(chart)
    for scale in (1, 3, 10):
        for where in ("in", "out"):
            for label in ("raw", "floor"):
                name = f"{scale}x {where} {label}"
                result.rows.append(
                    {
                        "environment": "bandit",
                        "rule": f"popo {label}",
                        "setting": f"scale {scale}, KL {where}",
                        "TV to equal": float(np.mean(found[f"tv {name}"])),
                        "min w at half": float(np.mean(found[f"half {name}"])),
                        "min w": float(np.mean(found[f"end {name}"])),
                    }
                )
    result.at_most(
        "bandit: total variation to the Gibbs policy of equal weights, worst seed", max(found["tv 1x in raw"]), 1e-3
    )
    result.at_most(
        "bandit 3x, KL inside: total variation, worst seed",
        max(found["tv 3x in raw"]),
        1e-3 if steps >= 20_000 else 3e-2,
    )
    result.at_most(
        "bandit 10x, KL inside, raw: smaller weight after half of the steps (slow)",
        float(np.median(found["half 10x in raw"])),
        0.05,
    )
    result.at_least(
        "bandit 10x, KL inside, floor 0.1: smaller weight at the end (cured)",
        float(np.median(found["end 10x in floor"])),
        0.25,
    )
    result.at_most(
        "bandit 3x, KL outside, raw: smaller weight (collapse), median seed",
        float(np.median(found["end 3x out raw"])),
        0.02,
    )
    result.at_most(
        "bandit 3x, KL outside, raw: smaller weight, best seed (equal weights are not reached)",
        max(found["end 3x out raw"]),
        0.4,
    )
    steering(result, seeds, steps, beta)
    peers(result, seeds, min(steps // 4, 4_000), beta)
    return charts


def steering(result: Result, seeds: range, steps: int, beta: float) -> None:
    """Check that POPO with a preference ends at the optimal (Gibbs) policy of the preferred weights, and that POPO
    without one ends at the same policy from different initial weights."""
    distances, spread = [], {"popo": [], "fixed": []}
    for seed in seeds:
        problem = exact.Bandit(exact.two_rewards(seed), beta)
        path = exact.descend(problem, "popo", RuleOptions(preference=(0.8, 0.2)), steps=steps, rate=0.5)
        distances.append(0.5 * np.abs(problem.policy(path.theta) - problem.gibbs(np.array([0.8, 0.2]))).sum())
        for name, ends in spread.items():
            policies = [
                problem.policy(
                    exact.descend(problem, name, RuleOptions(initial=w), steps=min(steps, 4_000), rate=0.5).theta
                )
                for w in ((0.1, 0.9), (0.9, 0.1))
            ]
            ends.append(0.5 * np.abs(policies[0] - policies[1]).sum())
    result.at_most(
        "bandit: preference (0.8, 0.2) to its Gibbs policy, total variation, worst seed", max(distances), 1e-3
    )
    result.at_most(
        "bandit: POPO from w0 = (.1, .9) and (.9, .1), total variation between the ends", max(spread["popo"]), 1e-3
    )
    row = {"environment": "bandit", "rule": "fixed", "setting": "w0 (.1,.9) against (.9,.1)"}
    result.rows.append(row | {"TV between ends": float(np.mean(spread["fixed"]))})


def peers(result: Result, seeds: range, steps: int, beta: float) -> None:
    """Add the end points of every rule on the bandit with exact expectations."""
    for scale in (1, 3):
        for name in ("fixed", *recommendation.RULES):
            ends = []
            for seed in seeds:
                problem = exact.Bandit(exact.two_rewards(seed) * np.array([[1.0], [scale]]), beta)
                path = _expected(problem, name, steps, seed)
                ends.append(
                    [
                        *problem.values(path.theta),
                        *(problem.values(path.theta) - problem.values(problem.start())) / [1, scale],
                        path.weights[-1, 0],
                        path.residual,
                    ]
                )
            mean = np.mean(ends, 0)
            result.rows.append(
                {
                    "environment": "bandit",
                    "rule": name,
                    "setting": f"scale {scale}",
                    "E[r1]": mean[0],
                    "E[r2]": mean[1],
                    "worst gain": float(np.mean(np.min(np.array(ends)[:, 2:4], 1))),
                    "w1": mean[4],
                    "min-norm residual": mean[5],
                }
            )


def _expected(problem: exact.Bandit, name: str, steps: int, seed: int) -> exact.Path:
    """Run any rule like :func:`exact.descend`. A rule that reads rewards observes a stratified sample of 512 rollouts
    per step."""
    if make_rule(name, 2, RuleOptions()).source != "rewards":
        return exact.descend(problem, name, RuleOptions(), steps=steps, rate=0.5)
    theta, rule = problem.start(), make_rule(name, 2, RuleOptions(seed=seed))
    order = np.random.default_rng(seed).permutation(512)
    weights = [rule.weights]
    for _ in range(steps):
        arms = np.searchsorted(problem.policy(theta).cumsum(), (order + 0.5) / 512).clip(
            max=problem.rewards.shape[1] - 1
        )
        rule.observe(Observation(rewards=problem.rewards[:, arms].T, group=4))
        theta = theta - 0.5 * rule.weights @ problem.gradients(theta)
        weights.append(rule.weights)
    end = exact.descend(exact.Bandit(problem.rewards, problem.beta), "fixed", RuleOptions(), steps=0, rate=0.0)
    g = problem.gradients(theta)
    shortest = exact.min_norm(g @ g.T)
    end.theta, end.weights, end.residual = theta, np.array(weights), float(np.linalg.norm(shortest @ g))
    return end


def kl_free(result: Result, seeds: range, steps: int) -> None:
    """Check that, without a KL penalty, fixed weights and POPO end at a single arm, and report where other rules end.
    Every weighted sum of expected rewards is linear in the policy, so its largest value is at a single arm."""
    for name in ("fixed", "popo", "mgda", "upgrad", "fairgrad"):
        largest = []
        for seed in seeds:
            problem = exact.Bandit(exact.two_rewards(seed), 0.0)
            path = exact.descend(problem, name, RuleOptions(), steps=steps, rate=2.0)
            policy, sums = problem.policy(path.theta), problem.rewards.sum(0)
            largest.append(policy[sums >= sums[policy.argmax()] - 1e-9].sum())  # arms with equal sums are one end point
        row = {"environment": "KL-free bandit", "rule": name}
        result.rows.append(row | {"mass on the largest arm and its equals": float(np.mean(largest))})
        if name in ("fixed", "popo"):
            result.at_least(
                f"KL-free bandit: {name} ends at a vertex, mass on the largest arm and its equals", min(largest), 0.95
            )


def noise(result: Result, seeds: range, steps: int, batches: int) -> list[figures.Chart]:
    """Check that sampling noise biases same-batch indicators but not cross-batch ones, and that POPO with noise added
    to one reward fails only with the same-batch ones."""
    ratios: dict[str, list[float]] = {"same": [], "cross": [], "same later": [], "snr same": [], "snr cross": []}
    for seed in seeds:
        problem = sampled.Contextual(seed)
        theta = np.zeros((problem.dimension, problem.arms))
        for moment in ("", " later"):
            rng = np.random.default_rng([seed, 3])
            found = np.array([sampled.indicators(problem.sample(theta, rng)[0]) for _ in range(batches)])
            g = problem.exact(theta)
            truth = (g @ g.sum(0)).sum()
            ratios["same" + moment].append(found[:, 0].sum(1).mean() / truth)
            if not moment:
                ratios["cross"].append(found[:, 1].sum(1).mean() / truth)
                for place, name in enumerate(("snr same", "snr cross")):
                    ratios[name].append(float((found[:, place].mean(0) / found[:, place].std(0)).mean()))
            for _ in range(600):
                theta = theta - 0.5 * problem.exact(theta).mean(0).reshape(theta.shape)
    for name, values in ratios.items():
        result.rows.append({"environment": "contextual", "quantity": f"I {name}", **interval(values)})
    result.at_least(
        "contextual: same-batch indicator over the true one at the start", float(np.mean(ratios["same"])), 1.5
    )
    result.at_least(
        "contextual: same-batch indicator over the true one after 600 steps", float(np.mean(ratios["same later"])), 5.0
    )
    result.at_most(
        "contextual: |cross-batch indicator / true one - 1|",
        abs(float(np.mean(ratios["cross"])) - 1),
        0.15 if len(seeds) == 1 else 0.05,
    )
    charts, gaps = [], {}
    for noisy in (0, 1):
        chart = figures.Chart(
            f"N(0,1) noise on reward {noisy + 1}", "step", "weight of the noisy reward", bounds=(0, 1)
        )
        for estimator in ("same-batch", "cross-batch"):
            for mode, options in (("raw", RuleOptions(mode="paper", eta=2.0)), ("robust", RuleOptions())):
                for seed in seeds:
                    problem = sampled.Contextual(seed, noise=(1.0, 0.0) if noisy == 0 else (0.0, 1.0))
                    path, _ = sampled.train(problem, estimator, options, steps=steps, rate=0.5, seed=seed)
                    gaps.setdefault((estimator, mode), []).append(abs(path[-100:, 0].mean() - 0.5))
                    if seed == 0:
                        chart.lines.append((f"{estimator} {mode}", np.arange(len(path)), path[:, noisy]))
        charts.append(chart)
    for (estimator, mode), values in gaps.items():
        result.rows.append(
            {
                "environment": "noisy bandit",
                "rule": f"popo {mode}",
                "setting": estimator,
                "|w - 1/2| mean": float(np.mean(values)),
                "worst": float(np.max(values)),
                "best": float(np.min(values)),
            }
        )
    result.at_least(
        "noisy bandit: same-batch fails, smallest |w - 1/2| over seeds, raw", min(gaps["same-batch", "raw"]), 0.3
    )
    result.at_least(
        "noisy bandit: same-batch fails the bar of cross-batch in the bounded, robust form too, smallest |w - 1/2|",
        min(gaps["same-batch", "robust"]),
        0.1,
    )
    result.at_most(
        "noisy bandit: cross-batch holds, largest |w - 1/2| over seeds, raw", max(gaps["cross-batch", "raw"]), 0.1
    )
    result.at_most(
        "noisy bandit: cross-batch holds, largest |w - 1/2| over seeds, robust", max(gaps["cross-batch", "robust"]), 0.1
    )
    return charts


def tiny_language_model(result: Result, quick: bool) -> None:
    """Train the tiny LM under every rule and under 11 fixed weights, with equally many steps and seeds, and compare the
    end points."""
    seeds, steps = (range(1), 10) if quick else (range(5), 32)
    sweep_weights = SWEEP[::5] if quick else SWEEP
    rules = ("popo", "popo-light") if quick else LANGUAGE_RULES
    preferences = () if quick else SWEEP
    arms: dict[tuple[str, Any], dict[str, Any]] = {
        ("fixed", w): {"weighting": "fixed", "reward_weights": [w, 1 - w]} for w in sweep_weights
    }
    arms |= {("rule", name): {"weighting": name} for name in rules}
    arms |= {("variant", name): options for name, options in ({} if quick else VARIANTS).items()}
    arms |= {("steered", p): {"weighting": "popo", "preference": [max(p, 0.02), max(1 - p, 0.02)]} for p in preferences}
    arms |= {("scaled", name): {"scale": 3.0, "weighting": name} for name in ([] if quick else SCALED)}
    jobs = [(arm, seed) for arm in arms for seed in seeds]
    done: dict[str, dict[Any, list[language.Run]]] = {kind: {} for kind, _ in arms}
    for (kind, name), seed in track(jobs, "tiny LM", unit="trainings"):
        done[kind].setdefault(name, []).append(language.run(seed, steps, **arms[kind, name]))
    sweep, runs, variants = done["fixed"], done["rule"], done.get("variant", {})
    fronts = [np.array([sweep[w][s].final() for w in sweep_weights]) for s in seeds]
    volume = np.array([hypervolume(front, ORIGIN) for front in fronts])
    worst_fixed = min(sweep_weights, key=lambda w: np.mean([r.gain().min() for r in sweep[w]]))
    best_fixed = max(sweep_weights, key=lambda w: np.mean([r.gain().min() for r in sweep[w]]))
    baseline = np.array([r.gain().min() for r in sweep[worst_fixed]])
    equal = np.mean([r.seconds for r in sweep[0.5]])
    for name, found in [*((f"fixed {w:.1f}", sweep[w]) for w in sweep_weights), *runs.items(), *variants.items()]:
        gains = np.array([r.gain().min() for r in found])
        result.rows.append(
            {
                "environment": "tiny LM",
                "rule": name,
                "aggregation": found[0].aggregation,
                "scale": found[0].scale,
                "r1": float(np.mean([r.final()[0] for r in found])),
                "r2": float(np.mean([r.final()[1] for r in found])),
                "worst gain": float(gains.mean()),
                "low": interval(gains)["low"],
                "high": interval(gains)["high"],
                "gain over worst fixed (paired)": interval(gains - baseline)["value"],
                "its low": interval(gains - baseline)["low"],
                "hypervolume of the point / sweep's": float(
                    np.mean([hypervolume(r.final()[None], ORIGIN) / v for r, v in zip(found, volume)])
                ),
                "distance to front": float(
                    np.mean([language.distance_to_front(r.final(), front) for r, front in zip(found, fronts)])
                ),
                "w1 at the end": float(np.mean([r.weights[-1, 0] for r in found])),
                "seconds / fixed": float(np.mean([r.seconds for r in found]) / equal),
            }
        )
    margin = interval(np.array([r.gain().min() for r in runs["popo"]]) - baseline)
    result.at_least(
        f"tiny LM: POPO's worst-objective gain over that of the worst fixed weights ({worst_fixed:.1f}), low end of the interval",
        margin["low"],
        0.0 if quick else 0.3,
    )
    if quick:
        return
    result.rows.append(
        {
            "environment": "tiny LM",
            "rule": f"best fixed {best_fixed:.1f} against popo, paired worst gain",
            **interval(np.array([a.gain().min() - b.gain().min() for a, b in zip(runs["popo"], sweep[best_fixed])])),
        }
    )
    steered_volume = np.array(
        [hypervolume(np.array([done["steered"][p][s].final() for p in SWEEP]), ORIGIN) for s in seeds]
    )
    result.rows.append({"environment": "tiny LM", "quantity": "hypervolume, 11 fixed weights", **interval(volume)})
    result.rows.append(
        {"environment": "tiny LM", "quantity": "hypervolume, 11 POPO preferences", **interval(steered_volume)}
    )
    result.at_least(
        "tiny LM: hypervolume of 11 POPO preferences over that of 11 fixed weights",
        float((steered_volume / volume).mean()),
        0.95,
    )
    for name in rules:
        result.at_least(
            f"tiny LM: {name} learns, mean gain summed over both rewards",
            float(np.mean([r.gain().sum() for r in runs[name]])),
            0.1,
        )
    for name, found in done["scaled"].items():
        gains = [r.gain().min() for r in found]
        result.rows.append(
            {
                "environment": "tiny LM, reward 2 times 3",
                "rule": name,
                "aggregation": found[0].aggregation,
                "scale": found[0].scale,
                "r1": float(np.mean([r.final()[0] for r in found])),
                "r2": float(np.mean([r.final()[1] for r in found])),
                "worst gain": interval(gains)["value"],
                "low": interval(gains)["low"],
                "high": interval(gains)["high"],
                "w1 at the end": float(np.mean([r.weights[-1, 0] for r in found])),
            }
        )
    _language_figures(sweep, runs, done["steered"], steps)


def _language_figures(sweep: dict, runs: dict, steered: dict, steps: int) -> None:
    front = figures.Chart("Tiny LM: end points, 5 seeds", "reward 1", "reward 2")
    for name, groups in (("fixed sweep", sweep.values()), ("POPO preferences", steered.values())):
        points = np.array([r.final() for group in groups for r in group])
        front.points.append((name, points[:, 0], points[:, 1]))
    for name in ("popo", "popo-light", "gdpo"):
        points = np.array([r.final() for r in runs[name]])
        front.points.append((name, points[:, 0], points[:, 1]))
    worst = figures.Chart("Tiny LM: smaller of the two rewards", "step", "min reward, mean of seeds")
    both = figures.Chart("Tiny LM: sum of the rewards", "step", "r1 + r2, mean of seeds")
    path = figures.Chart("Tiny LM: weight of reward 1", "step", "w1, seed 0", bounds=(0, 1))
    for name, group in [*runs.items(), ("fixed 0.5", sweep[0.5])]:
        curve = np.mean([r.curves for r in group], 0)
        smooth = np.array([curve[max(0, i - 4) : i + 1].mean(0) for i in range(len(curve))])
        worst.lines.append((name, np.arange(1, len(smooth) + 1), smooth.min(1)))
        both.lines.append((name, np.arange(1, len(smooth) + 1), smooth.sum(1)))
        if name not in ("random", "gdpo"):
            path.lines.append((name, np.arange(1, len(group[0].weights) + 1), group[0].weights[:, 0]))
    figures.save(FIGURES / "pareto-language.svg", [front, worst, both, path])


if __name__ == "__main__":
    run(measure)
