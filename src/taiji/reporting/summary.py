"""``metrics.json``: the results of a run, their schema, verdicts and findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from taiji.core.errors import ArtifactError
from taiji.core.number_format import number_text, thousands
from taiji.metrics.task_metrics import MAIN_METRICS, SHOWN_METRICS, head_title, split_key, title_of
from taiji.reasoning.selection import LEFT_OUT

FORMER_KINDS = {"floor": "baseline", "ceiling": "oracle"}
"""Kinds as version 0.1 wrote them, with their current names."""
MARKS = {"better": "▲", "worse": "▼", "different": "◆"}
"""Marks of verdicts on the pages; all other verdicts have ○."""
AGAINST_BASELINES = {"category_l1": "Category L1", "hit@100": "Title hit@100", "ctcvr": "CTCVR"}
"""Metrics in which the last model is compared with the best baseline."""


class _Open(BaseModel):
    """Model that validates its own keys and allows additional ones, which other packages may add."""

    model_config = ConfigDict(extra="allow")


class SplitSummary(_Open):
    """The split by time. ``dates`` maps each period to its first and last ISO date, and ``rows`` maps names to
    counts."""

    fingerprint: str
    dates: dict[str, tuple[str, str]]
    rows: dict[str, int]


class RationaleSummary(_Open):
    """Numbers of rationales written, kept and judged, the fixed threshold, and the count of each reason of rejection.

    Rationales of calibration prompts are written but not judged: they only set the threshold.
    """

    written: int
    kept: int
    judged: int | None = None
    threshold: float | None
    reasons: dict[str, int] = {}
    ended: dict[str, int] = {}
    """Number of rationales per ending (such as ``whole`` or ``cut``), including those of calibration prompts."""
    perplexities: list[float] = []
    """Perplexity of the true answer after each scored rationale, the quantity compared with ``threshold``."""
    masked: bool = False
    """True if ``perplexities`` were measured with the mentions of the item in the rationale redacted (guarded rule)."""

    @property
    def choice(self) -> tuple[int, int, int]:
        """Numbers of rationales kept, judged, and used only to set the threshold."""
        judged = self.written if self.judged is None else self.judged
        return self.kept, judged, self.written - judged

    def kept_text(self, what: str = "") -> str:
        """Return a text such as ``66 of 120 kept (48 more set the threshold)``; ``what`` optionally names the unit."""
        kept, judged, others = self.choice
        text = f"{thousands(kept)} of {thousands(judged)}{' ' + what if what else ''} kept"
        return text + (f" ({thousands(others)} more set the threshold)" if others else "")

    def ended_text(self) -> str:
        """Return a text with the numbers of the teacher's incomplete rationales; empty if all are complete."""
        left_out = [f"{thousands(count)} {LEFT_OUT[how]}" for how, count in self.ended.items() if how in LEFT_OUT]
        shortened = self.ended.get("shortened", 0)
        parts = (
            [f"{thousands(shortened)} reached the length limit and keep only complete sentences"] if shortened else []
        )
        return "; ".join(parts + ([f"left out and not used for training: {', '.join(left_out)}"] if left_out else []))


class Difference(_Open):
    """A paired difference from another row of the same metric and group."""

    against: str
    value: float | None
    low: float | None
    high: float | None
    method: str | None = None
    """Method of the interval: ``identity`` (both rows are identical, so the zero width is exact), ``exact binomial``,
    or null for the bootstrap."""
    reason: str | None = None
    """Reason why there is no interval."""


class MetricValue(_Open):
    """One metric of one arm with its interval."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str | None = None
    reason: str | None = None
    difference: Difference | None = None
    competitors: list[Difference] = Field(default=[], validation_alias=AliasChoices("competitors", "rivals"))


class ModelMetric(MetricValue):
    """A metric of a language model, a baseline or the oracle."""

    model: str
    kind: Annotated[
        Literal["model", "baseline", "oracle"], BeforeValidator(lambda kind: FORMER_KINDS.get(kind, kind))
    ] = "model"


class RankerMetric(MetricValue):
    """A metric of a ranker with given features, over a group of exposures."""

    features: str
    group: str = "all"


class Step(_Open):
    """One update of the alignment."""

    step: int
    weights: dict[str, float | None]
    rewards: dict[str, float | None]

    def values(self, what: str) -> dict[str, float | None]:
        """Return ``rewards``, ``weights`` or another recorded value per reward; empty if not recorded."""
        found: dict[str, float | None] | None = self.model_dump().get(what)
        return found or {}


class AlignmentSummary(_Open):
    """The rule that sets the weights of the rewards, and the weights and mean rewards of every step."""

    rule: str
    steps: list[Step]


class FeatureMetrics(_Open):
    """Metrics of a feature table: coverage and age on the exposures of the test period, quantiser and intents
    on all its rows.

    The first five fields come from :func:`taiji.features.feature_table.feature_metrics`, the next four from
    ``ProductQuantizer.metrics``, and the last three from :func:`taiji.features.intents.intent_metrics`.
    """

    coverage: float
    users: float
    neighbour_items: float
    age_days_median: float
    age_days_p90: float
    utilisation: float
    distortion: float
    perplexity: float
    collisions: float
    with_intents: float | None = None
    """Share of rows with intents, if answers are sets. The next two fields cover these rows: the mean number of
    intents, and the mean weight of the first intent."""
    intents: float | None = None
    first_weight: float | None = None


class RungResult(_Open):
    """A rung of the ladder on one log; the fields are those of :func:`taiji.experiments.ladder.climb`."""

    model: str
    rung: str
    group: str
    auc: float | None
    rows: int | None = None
    against: str | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    kept: float | None = None
    kept_gain: float | None = None
    kept_low: float | None = None
    kept_high: float | None = None
    unread: bool = False

    @property
    def difference(self) -> Difference | None:
        """Gain over the reference rung ``against``; None on the first rung, and on a rung whose fields have no values
        on the log.

        If ``kept`` is recorded, this is ``kept_gain``: the gain of a ranker that drops fields that do not pay off.
        Otherwise it is ``gain``.
        """
        if self.gain is None or self.kept is None:
            return self.always_read
        return Difference(against=self.against or "", value=self.kept_gain, low=self.kept_low, high=self.kept_high)

    @property
    def always_read(self) -> Difference | None:
        """Gain of a ranker that always reads the rung's fields; None as for :attr:`difference`."""
        if self.gain is None:
            return None
        return Difference(against=self.against or "", value=self.gain, low=self.low, high=self.high)

    @property
    def sometimes_dropped(self) -> bool:
        """True if a gain is shown for a ranker that always reads the fields, but not for the default ranker, which
        drops them in some training runs."""
        if self.difference is None or self.always_read is None or self.kept is None or not 0 < self.kept < 1:
            return False
        return verdict(self.always_read) == "better" and verdict(self.difference) != "better"


class LogLadder(_Open):
    """The ladder of one log, see :func:`taiji.experiments.log_ladder.climbed`."""

    log: str
    ladder: list[RungResult]
    decisions: list[dict[str, str]] = []
    left_out: str | None = None


class RunMetrics(_Open):
    """Content of ``metrics.json``."""

    name: str = "run"
    data: str = ""
    level: float = 0.95
    """Coverage of every interval."""
    notes: list[str] = []
    ladder: list[LogLadder] = []
    """Ladders of the run's log and of the additional logs."""
    split: SplitSummary
    rationales: RationaleSummary
    llm: list[ModelMetric]
    alignment: AlignmentSummary
    ranking: list[RankerMetric]
    features: dict[str, FeatureMetrics] = {}
    seconds: dict[str, float]


def check_metrics(metrics: Mapping[str, Any]) -> RunMetrics:
    """Parse a ``metrics.json`` dict.

    Raises:
        ArtifactError: keys are missing or have the wrong form; the message names each.
    """
    try:
        return RunMetrics.model_validate(metrics)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()[:8]]
        raise ArtifactError(
            "The metrics do not have the form of metrics.json.",
            where="metrics.json",
            found="; ".join(problems),
            fix="create the report with the version that wrote the run",
        ) from error


def verdict(difference: Difference, goal: str = "high") -> str:
    """Return the verdict on a paired difference: ``better``, ``worse``, ``different`` (for a metric without a better
    direction), ``interval includes zero``, ``identical``, or the reason why there is no interval."""
    if difference.method == "identity":
        return "identical"
    if difference.low is None or difference.high is None:
        return difference.reason or "too few users"
    if difference.low == difference.high:  # runs of earlier versions: the resampled users all had equal values
        return "too few users"
    if difference.low <= 0 <= difference.high:
        return "interval includes zero"
    if goal == "one":
        return "different"
    return "better" if (difference.low > 0) == (goal == "high") else "worse"


def mark_of(outcome: str) -> str:
    """Return the mark of a verdict on the pages."""
    return MARKS.get(outcome, "○")


def tone_of(outcome: str) -> str:
    """Return the name of a verdict's style on the pages: the verdict if it is in :data:`MARKS`, else ``open``."""
    return outcome if outcome in MARKS else "open"


def goal_of(metric: str) -> str:
    """Return a metric's goal: ``high``, ``low``, or ``one`` (the ideal value is 1)."""
    name = split_key(metric)[1]
    if name in SHOWN_METRICS:
        return SHOWN_METRICS[name].goal
    return "low" if name in ("grounding_low", "redundancy") else "high"


def heads_of(run: RunMetrics) -> list[str]:
    """Return the evaluated predictions (such as click) of a run's rankers, in the order of ``run.ranking``."""
    return list(dict.fromkeys(split_key(figure.metric)[0] for figure in run.ranking))


def metrics_of(run: RunMetrics, head: str, *, full: bool = True) -> list[str]:
    """Return the metric keys of the prediction ``head`` in table order; only the main metrics if not ``full``."""
    there = dict.fromkeys(name for at, name in (split_key(figure.metric) for figure in run.ranking) if at == head)
    ordered = [
        *(name for name in SHOWN_METRICS if name in there),
        *(name for name in there if name not in SHOWN_METRICS),
    ]
    return [f"{head} {name}" for name in ordered if full or name in MAIN_METRICS]


def leading_metric(run: RunMetrics) -> str | None:
    """Return the key of the metric that decides: the first main metric of the first prediction. None if no ranker was
    evaluated."""
    return next((key for head in heads_of(run)[:1] for key in metrics_of(run, head, full=False)), None)


def digits_for(figures: Sequence[MetricValue | Difference]) -> int:
    """Return the number of decimals, from 3 to 6, that shows two significant digits of the median interval width."""
    widths = sorted(f.high - f.low for f in figures if f.low is not None and f.high is not None and f.high > f.low)
    return 4 if not widths else min(6, max(3, 1 - math.floor(math.log10(widths[len(widths) // 2]))))


def metric_text(figure: MetricValue | Difference, digits: int | None = None, *, signed: bool = False) -> str:
    """Return a text such as ``0.512 [0.498, 0.527]``; a dash if there is no value.

    A signed text gets enough decimals to show on which side of zero the ends of the interval lie.
    """
    if figure.value is None:
        return "–"
    places = digits_for([figure]) if digits is None else digits
    ends = [end for end in (figure.low, figure.high) if end]
    while signed and places < 6 and any(round(end, places) == 0 for end in ends):
        places += 1
    text = number_text(figure.value, places, signed=signed)
    if figure.low is None or figure.high is None:
        return text
    return (
        f"{text} [{number_text(figure.low, places, signed=signed)}, {number_text(figure.high, places, signed=signed)}]"
    )


def findings(run: RunMetrics) -> list[str]:
    """Return one sentence per important comparison, including comparisons without a significant difference."""

    def line(arm: str, metric: str, gap: Difference) -> str:
        return f"{arm} against {gap.against}, {metric} {metric_text(gap, signed=True)}: {verdict(gap)}"

    leading = leading_metric(run)
    head, name = split_key(leading or "")
    title = f"{head_title(head)} {title_of(name)}"
    rankers = [
        line(f.features, title if f.group == "all" else f"{title} of {f.group} users", gap)
        for f in run.ranking
        if f.metric == leading and f.group in ("all", "sparse")
        for gap in [*([f.difference] if f.difference else []), *f.competitors]
    ]
    answers = [
        line(f.model, "category L1", f.difference) for f in run.llm if f.metric == "category_l1" and f.difference
    ]
    return rankers + answers + _against_baselines(run)


def _against_baselines(run: RunMetrics) -> list[str]:
    """Return one sentence per metric that compares the last model with the best baseline.

    A gain over the base model alone would not show that a language model is needed.
    """
    last = next((f.model for f in reversed(run.llm) if f.kind == "model"), None)
    lines = []
    for metric, title in AGAINST_BASELINES.items():
        baselines = [f for f in run.llm if f.kind == "baseline" and f.metric == metric and f.value is not None]
        own = next((f for f in run.llm if f.model == last and f.metric == metric), None)
        if not baselines or own is None:
            continue
        best = max(baselines, key=lambda baseline: baseline.value or 0.0).model
        for gap in own.competitors:
            if gap.against == best:
                lines.append(
                    f"{title} of {last} against the best baseline, {best}, {metric_text(gap, signed=True)}: {verdict(gap)}"
                )
    return lines
