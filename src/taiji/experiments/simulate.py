"""``taiji abtest``: the closed loop in the synthetic shop, where the truth is known.

Rankers without and with text features are trained on the shop's log, several times each. They are compared on later
exposures (offline) and by off-policy estimates from these exposures, whose items the shop chose at random. Then they
are deployed: new users are assigned to arms, each arm's rankers choose items for its users, and the users respond by
the shop's response function. Because that function is known, every estimate can be compared with the truth, and the
whole test can be repeated to measure the coverage of its interval.

Features are computed as in a run: embedding → product quantiser → ids, and the look-alike's sequence of items. The
embedding is the mean over the texts of the user's last items, instead of the embedding of a language model's rationale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError
from taiji.core.number_format import number_text
from taiji.core.progress import track
from taiji.data.dataset import Dataset
from taiji.experiments.abtest import Comparison, compare_arms, cuped, power_of, ratio_values, sample_size
from taiji.experiments.offpolicy import (
    Logged,
    cross_fitted_rates,
    dr_terms,
    ips_terms,
    snips_terms,
    value_interval,
)
from taiji.experiments.replay import outcomes, replay
from taiji.experiments.settings import ABTestSettings
from taiji.experiments.study import evaluate_seeds
from taiji.metrics.ranker_evaluation import predicted_tasks
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.world.shop import Shop

if TYPE_CHECKING:
    from taiji.language.embed import Embedder
    from taiji.models.ranking.train import RankingModel

Array = NDArray[Any]
CONTROL, TREATMENT = "none", "text"
MEANS = ("clicks", "conversions", "revenue", "advertiser value")
"""Metrics that are means per user. A further metric, ``click rate``, is a ratio of sums: clicks over impressions."""
TRAIN_SHARE = 0.7


def simulate(settings: ABTestSettings, seed: int = 0, embedder: Embedder | None = None) -> dict[str, Any]:
    """Run the whole comparison in one shop.

    Args:
        settings: shop, ranker, test.
        seed: seed of the shop, the training and the assignment.
        embedder: embedder of the item texts; None for the default.

    Returns:
        ``offline`` (rows of :func:`taiji.experiments.study.evaluate_seeds`), ``replay`` (rows of
        :func:`taiji.experiments.replay.replay`), ``off_policy`` (estimates with the truth), ``ab`` (metric → comparison
        of the arms with the ``truth``; means with and without CUPED), ``aa`` (metric → share of significant A/A tests),
        ``repeats`` (metric → coverage of the truth and power over repeated tests), ``plan`` (sample size and power),
        ``users`` (number of users in the test), ``notes``.
    """
    loop = _Loop(settings, seed, embedder)
    test = loop.test
    predictions = {
        (arm, number): ranker.predict(loop.with_features(arm, test))
        for arm, rankers in loop.rankers.items()
        for number, ranker in enumerate(rankers)
    }
    served = {arm: _mean([predictions[arm, number] for number in range(settings.seeds)]) for arm in loop.rankers}
    tasks = predicted_tasks(loop.dataset.tasks, predictions.values())
    by = "ctcvr" if "ctcvr" in served[CONTROL].columns else "click"
    options: dict[str, Any] = {"resamples": settings.resamples, "level": settings.level, "seed": seed}
    ab, first = loop.experiment(np.random.default_rng([seed, 101])), loop.means(CONTROL)["clicks"]
    effect, spread = (
        loop.truth("clicks"),
        float(loop.draw(CONTROL, np.random.default_rng([seed, 102]))["clicks"].std()),
    )
    half = len(loop.users) // 2
    return {
        "offline": evaluate_seeds(predictions, test, tasks=tasks, against=CONTROL, **options),
        "replay": replay(test, served, by=by, k=settings.slots, fee=settings.fee, against=CONTROL, **options),
        "off_policy": loop.off_policy(),
        "ab": ab,
        "aa": loop.aa_tests(),
        "repeats": loop.repeats(),
        "plan": {
            "metric": "clicks per user",
            "effect": effect,
            "relative effect": effect / float(first.mean()),
            "users_an_arm": sample_size(spread, effect, level=settings.level, power=settings.power)
            if effect and spread
            else None,
            "power_here": power_of(half, spread, effect, level=settings.level)
            if effect and spread
            else 1 - settings.level,
        },
        "users": len(loop.users),
        "notes": list(loop.dataset.notes),
    }


def train_and_test(dataset: Dataset) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Return the exposures before the cut, those from the cut on, and the cut (microseconds).

    Before the cut, a conversion that was not yet known at the cut is null.
    """
    exposed = dataset.events.filter("exposed")
    cut = int(exposed["time"].quantile(TRAIN_SHARE, interpolation="lower"))  # type: ignore[arg-type]
    known = pl.when(pl.col("matured_at") < cut).then(pl.col("conversion"))
    log = exposed.filter(pl.col("time") < cut).with_columns(known.alias("conversion"))
    return log, exposed.filter(pl.col("time") >= cut), cut


def text_features(dataset: Dataset, cut: int, seed: int, embedder: Embedder | None = None) -> pl.DataFrame:
    """Return a feature row just before every request; the quantiser is fitted on rows from before the cut."""
    from taiji.features.feature_table import fit_table
    from taiji.features.history_mean import history_mean
    from taiji.language.embed import load_embedder
    from taiji.reasoning.prompts import item_lines

    embedder = load_embedder() if embedder is None else embedder
    exposed = dataset.events.filter("exposed")
    rows = exposed.select("user", (pl.col("time") - 1).alias("as_of")).unique(maintain_order=True)
    vectors = history_mean(
        dataset, rows["user"].to_numpy(), rows["as_of"].to_numpy(), embedder.encode(item_lines(dataset))
    )
    return fit_table(dataset, rows, vectors, cut, model_version=f"history mean, {embedder.version}", seed=seed)[1]


class _Loop:
    """A shop, the trained rankers of both arms, and the users they serve: those whose first request is at the
    cut or later."""

    def __init__(self, settings: ABTestSettings, seed: int, embedder: Embedder | None) -> None:
        from taiji.models.ranking.train import train_ranker

        self.settings, self.seed = settings, seed
        self.shop = Shop(settings.shop, seed)
        self.dataset = Dataset.from_tables(self.shop.tables())
        log, self.test, self.cut = train_and_test(self.dataset)
        self.features = text_features(self.dataset, self.cut, seed, embedder)
        ranker = settings.ranker
        tasks = getattr(ranker, "tasks", None)
        if tasks is not None and "click" not in tasks:
            raise ConfigError(
                "The rankers of an A/B test choose items by the predicted click, but do not predict it.",
                where="abtest.ranker.tasks",
                expected="click, and possibly other tasks",
                found=", ".join(tasks) or "no task",
            )
        if isinstance(ranker, NeuralRankerSettings) and ranker.pair_fields is None:
            ranker = ranker.model_copy(update={"pair_fields": ()})
        grid = [(arm, number) for arm in (CONTROL, TREATMENT) for number in range(settings.seeds)]
        self.rankers: dict[str, list[RankingModel]] = {CONTROL: [], TREATMENT: []}
        for arm, number in track(grid, "Rankers of the A/B test", unit="rankers"):
            self.rankers[arm].append(
                train_ranker(self.dataset, self.with_features(arm, log), ranker, seed * 1000 + number)
            )
        self.users, self._request_user, self._when = self._visitors()
        self._picks = {arm: self._choose(arm) for arm in self.rankers}
        first = np.full(self.dataset.n_users, np.iinfo(np.int64).max)
        np.minimum.at(first, self._request_user, self._when)
        self._before = self.dataset.history.count_before(self.users, first[self.users]).astype(float)

    def with_features(self, arm: str, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return exposures with the arm's features joined as of their time."""
        from taiji.features.feature_table import join_features

        return exposures if arm == CONTROL else join_features(exposures, self.features, ("ids", "neighbour_items"))

    def means(self, arm: str) -> dict[str, Array]:
        """Return the true expected outcomes of every user (U,) under an arm, by metric."""
        user, item = self._picks[arm]
        click = self.shop.click_probability(user, item)
        return self._per_user(
            user,
            outcomes(click, self.shop.conversion_probability(user, item), self.shop.prices[item], self.settings.fee),
        )

    def truth(self, metric: str) -> float:
        """Return the true gain of the treatment: the difference between the arms' means per user or, for ``click
        rate``, between their ratios of sums."""
        both = [self.means(arm) for arm in (TREATMENT, CONTROL)]
        if metric == "click rate":
            shown = self._impressions()
            return float(both[0]["clicks"].sum() / shown.sum() - both[1]["clicks"].sum() / shown.sum())
        return float(both[0][metric].mean() - both[1][metric].mean())

    def draw(self, arm: str, generator: np.random.Generator) -> dict[str, Array]:
        """Return one random draw of every user's outcomes (U,) under an arm, by metric."""
        user, item = self._picks[arm]
        click = generator.random(len(user)) < self.shop.click_probability(user, item)
        conversion = generator.random(len(user)) < self.shop.conversion_probability(user, item)
        return self._per_user(
            user,
            outcomes(click.astype(float), conversion.astype(float), self.shop.prices[item], self.settings.fee),
        )

    def experiment(self, generator: np.random.Generator) -> dict[str, dict[str, Any]]:
        """Run one A/B test, and return metric → comparison with its ``truth``. Means per user are also compared with
        CUPED."""
        treated = generator.permutation(len(self.users)) < len(self.users) // 2
        found = self._compare(self.draw(TREATMENT, generator), self.draw(CONTROL, generator), treated)
        return {
            metric: {**asdict(comparison), "truth": self.truth(metric.removesuffix(" (CUPED)"))}
            for metric, comparison in found.items()
        }

    def aa_tests(self) -> dict[str, float | None]:
        """Return metric → share of significant A/A tests; None if no test has an interval.

        Each test has a new assignment and new responses.
        """
        counts: dict[str, list[bool]] = {}
        for run in range(self.settings.repeats):
            generator = np.random.default_rng([self.seed, 103, run])
            treated = generator.permutation(len(self.users)) < len(self.users) // 2
            same = self.draw(CONTROL, generator)
            for metric, comparison in self._compare(same, same, treated).items():
                counts.setdefault(metric, []).extend([] if comparison.reason else [comparison.significant])
        return {metric: sum(found) / len(found) if found else None for metric, found in counts.items()}

    def repeats(self) -> dict[str, dict[str, float | None]]:
        """Return metric → ``coverage`` of the true gain and ``power`` over repeated A/B tests; None if no test has an
        interval."""
        truths: dict[str, float] = {}
        covered: dict[str, list[bool]] = {}
        significant: dict[str, list[bool]] = {}
        for run in range(self.settings.repeats):
            generator = np.random.default_rng([self.seed, 104, run])
            treated = generator.permutation(len(self.users)) < len(self.users) // 2
            for metric, found in self._compare(
                self.draw(TREATMENT, generator), self.draw(CONTROL, generator), treated
            ).items():
                if metric not in truths:
                    truths[metric] = self.truth(metric.removesuffix(" (CUPED)"))
                covers = found.covers(truths[metric])
                if covers is not None:
                    covered.setdefault(metric, []).append(covers)
                    significant.setdefault(metric, []).append(found.significant)
        return {
            metric: {
                "coverage": float(np.mean(covered[metric])) if metric in covered else None,
                "power": float(np.mean(significant[metric])) if metric in covered else None,
            }
            for metric in truths
        }

    def off_policy(self) -> list[dict[str, Any]]:
        """Return the click rate of each arm's best item, estimated off-policy from the exposures of random items, and
        the true rate."""
        first = self.test.with_columns(pl.struct("user", "time").rank("dense").alias("request")).unique(
            "request", keep="first", maintain_order=True
        )
        users, times, actions = (
            first["user"].to_numpy().astype(np.int64),
            first["time"].to_numpy(),
            first["item"].to_numpy().astype(np.int64),
        )
        rewards, promoted = first["click"].to_numpy().astype(float), self.settings.shop.promoted
        rates, rows = cross_fitted_rates(actions, rewards, promoted, seed=self.seed), []
        for arm in self.rankers:
            best = self._scores(arm, users, times).argmax(axis=1)
            log = Logged(rewards, np.full(len(rewards), 1 / promoted), (best == actions).astype(float))
            here = np.arange(len(actions))
            every = {
                "ips": ips_terms(log),
                "snips": snips_terms(log),
                "dr": dr_terms(log, rates[here, actions], rates[here, best]),
            }
            truth = float(self.shop.click_probability(users, best).mean())
            for name, terms in every.items():
                rows.append(
                    {
                        "features": arm,
                        "estimator": name,
                        **value_interval(
                            terms,
                            log,
                            resamples=self.settings.resamples,
                            level=self.settings.level,
                            seed=self.seed,
                        ),
                        "truth": truth,
                        "effective_rows": log.effective_rows,
                    }
                )
        return rows

    def _compare(
        self, treated_world: Mapping[str, Array], control_world: Mapping[str, Array], treated: Array
    ) -> dict[str, Comparison]:
        found, planned, level = {}, len(self.users), self.settings.level
        for metric in MEANS:
            values = np.where(treated, treated_world[metric], control_world[metric])
            found[metric] = compare_arms(values[treated], values[~treated], level=level, planned=planned)
            adjusted = cuped(values, self._before)
            found[f"{metric} (CUPED)"] = compare_arms(
                adjusted[treated], adjusted[~treated], level=level, planned=planned
            )
        shown = self._impressions()
        ratios = [
            ratio_values(world["clicks"][mask], shown[mask])
            for world, mask in ((treated_world, treated), (control_world, ~treated))
        ]
        found["click rate"] = compare_arms(*ratios, level=level, planned=planned)
        return found

    def _visitors(self) -> tuple[Array, Array, Array]:
        """Return the new users (U,), whose first request is at the cut or later, and the user (R,) and time (R,) of
        each of their requests."""
        first = self.dataset.events.filter("exposed").group_by("user").agg(pl.col("time").min())
        new = first.filter(pl.col("time") >= self.cut)["user"].sort().to_numpy().astype(np.int64)
        requests = self.test.select("user", "time").unique(maintain_order=True).filter(pl.col("user").is_in(new))
        return new, requests["user"].to_numpy().astype(np.int64), requests["time"].to_numpy()

    def _choose(self, arm: str) -> tuple[Array, Array]:
        """Return user and item of every slot filled by the arm's ranker, each (R · slots,)."""
        scores = self._scores(arm, self._request_user, self._when)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.settings.slots]
        return np.repeat(self._request_user, best.shape[1]), best.ravel()

    def _scores(self, arm: str, users: Array, times: Array) -> Array:
        """Return an arm's click predictions (R, promoted) for all items that could be shown."""
        promoted = self.settings.shop.promoted
        frame = pl.DataFrame(
            {
                "user": np.repeat(users, promoted),
                "item": np.tile(np.arange(promoted), len(users)),
                "time": np.repeat(times, promoted),
            }
        )
        frame = self.with_features(arm, frame)
        return (
            _mean([ranker.predict(frame) for ranker in self.rankers[arm]])["click"]
            .to_numpy()
            .reshape(len(users), promoted)
        )

    def _per_user(self, user: Array, earned: dict[str, Array]) -> dict[str, Array]:
        place = np.searchsorted(self.users, user)
        return {
            metric: np.bincount(place, weights=values, minlength=len(self.users)) for metric, values in earned.items()
        }

    def _impressions(self) -> Array:
        return np.bincount(np.searchsorted(self.users, self._picks[CONTROL][0]), minlength=len(self.users)).astype(
            float
        )


def _mean(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the mean prediction of several rankers."""
    heads = [name for name in frames[0].columns if name != "event"]
    return pl.DataFrame({head: np.mean([frame[head].to_numpy() for frame in frames], axis=0) for head in heads})


def print_abtest(found: Mapping[str, Any]) -> None:
    """Print the result of :func:`simulate`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 120))
    for note in found["notes"]:
        console.print(f"[dim]{note}[/dim]", highlight=False)
    grid = Table(
        title=f"A/B test, {found['users']} users: text features against none",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in (
        "per user",
        "difference",
        "interval",
        "anytime-valid interval",
        "truth",
        "A/A",
        "coverage",
        "power",
    ):
        grid.add_column(column, justify="left" if column == "per user" else "right", no_wrap=True)
    for metric, row in found["ab"].items():
        cells = [
            _number(row["difference"]),
            row["reason"] or f"{_number(row['low'])} – {_number(row['high'])}",
            "–" if row["always_low"] is None else f"{_number(row['always_low'])} – {_number(row['always_high'])}",
            _number(row["truth"]),
        ]
        shares = [
            found["aa"][metric],
            found["repeats"][metric]["coverage"],
            found["repeats"][metric]["power"],
        ]
        grid.add_row(metric, *cells, *("–" if share is None else f"{share:.1%}" for share in shares))
    console.print(grid)
    plan = found["plan"]
    console.print(
        "A/A: share of significant tests if there is no difference. Coverage and power are measured by repeated tests of the same rankers.",
        style="dim",
        highlight=False,
    )
    if plan["users_an_arm"]:
        console.print(
            f"To detect {_number(plan['effect'])} {plan['metric']} ({plan['relative effect']:+.1%}): {plan['users_an_arm']:,} users per arm; power of this test: {plan['power_here']:.0%}.",
            highlight=False,
        )


def _number(value: float) -> str:
    return number_text(value, 3, signed=True)
