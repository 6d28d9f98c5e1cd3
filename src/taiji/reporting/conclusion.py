"""Conclusion of a run, or of a ladder without a run: the question, the answers, and the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taiji.core.number_format import counted
from taiji.metrics.task_metrics import key_title
from taiji.reporting.ladder_view import LEFT_OUT, ORACLE, deciding_rungs, outcome_of, title_of_rung, without_texts
from taiji.reporting.summary import (
    Difference,
    RankerMetric,
    RungResult,
    RunMetrics,
    goal_of,
    leading_metric,
    mark_of,
    metric_text,
    tone_of,
    verdict,
)

NOT_ASKED = "Run `taiji oracle` with the same configuration: it shows whether texts or a model could help on this log."
TEXT_PAYS = "Serve a ranker that reads the texts of the items (`text_match`, on by default): they pay off here without a language model."
TEXT_DROPPED = (
    "Let the ranker always read the texts (`{field: text_match}` without `must_pay` in `ranking.pair_fields`), or use more rows "
    "(`data.users`, `ladder.rows`): the rule that drops fields which do not pay off does not reliably keep them here."
)
ROOM = "A language model could help: try one with `taiji run`; if it does not help, try a larger one or answers for more users, and compare them with `taiji study`."
NO_ROOM = "Do not pay for a larger model on this log: no gain of this ranker is shown even from the true next items."
HARM = "Try more data or other ranker settings first: even the true next items make this ranker worse."
NO_TEXTS = (
    "Add titles or descriptions of the items, then run `taiji oracle`: "
    "without texts, neither their value nor that of a language model can be measured."
)
FEW = "Use a log with more users, or more of its users (`data.users`, `ladder.rows`): there are too few to tell."


@dataclass(frozen=True)
class Answer:
    """One sentence of the answer.

    Attributes:
        text: the sentence.
        outcome: a verdict of :func:`taiji.reporting.summary.verdict`, or :data:`taiji.reporting.ladder_view.LEFT_OUT`.
    """

    text: str
    outcome: str

    @property
    def mark(self) -> str:
        """Mark shown before the sentence."""
        return mark_of(self.outcome)

    @property
    def tone(self) -> str:
        """Name of the style of the verdict on the pages."""
        return tone_of(self.outcome)


@dataclass(frozen=True)
class Conclusion:
    """Question, answers and next step, all as sentences."""

    asked: str
    answers: tuple[Answer, ...]
    advice: str

    def lines(self) -> list[str]:
        """Return the conclusion as lines of text for a terminal."""
        return [f"asked: {self.asked}", *(f"{a.mark} {a.text}" for a in self.answers), f"advice: {self.advice}"]


def conclusion(run: RunMetrics) -> Conclusion | None:
    """Return the conclusion of a run; None if it compared no rankers.

    The first answer compares the ranker that uses the language model's features with a ranker without these features
    and with baseline features. It is based on the leading metric (:func:`taiji.reporting.summary.leading_metric`) over
    all exposures. The other answers, about texts and about the upper bound, come from the ladder of the run's own log.
    """
    arm = _model_arm(run)
    if arm is None or arm.difference is None:
        return None
    goal = goal_of(arm.metric)
    answers = [_of_model(arm, goal)]
    ladder = run.ladder[0].ladder if run.ladder else ()
    answers += _of_ladder(ladder)
    outcomes = [verdict(gap, goal) for gap in (arm.difference, *arm.competitors)]
    if set(outcomes) == {"better"}:
        advice = (
            "Check with `taiji study` that the gain holds for other training seeds; then serve it with `taiji serve`."
        )
    elif outcomes[0] == "better":
        baseline = next(gap.against for gap, found in zip(arm.competitors, outcomes[1:]) if found != "better")
        advice = (
            f"Use {baseline} instead of the language model: {baseline} costs nothing, and is not shown to be worse."
        )
    else:
        advice = ladder_advice(ladder)
    where = f" on {run.data}" if run.data else ""
    return Conclusion(f"Do the answers of a language model improve a ranker{where}?", tuple(answers), advice)


def ladder_conclusion(rows: Sequence[Mapping[str, Any]]) -> Conclusion | None:
    """Return the conclusion of rows of :func:`taiji.experiments.ladder.climb`; None if they say nothing about texts or
    about the true next items."""
    ladder = [RungResult.model_validate(row) for row in rows]
    answers = _of_ladder(ladder)
    if not answers and without_texts(ladder):
        answers = [Answer("Not measured: the items have no texts that distinguish them.", "not measured")]
    if not answers:
        return None
    return Conclusion(
        "Could the texts of items, or a language model, improve a ranker on this log?",
        tuple(answers),
        ladder_advice(ladder),
    )


def ladder_advice(ladder: Sequence[RungResult]) -> str:
    """Return advice based on a ladder: first about texts, because they cost least, then about a language model."""
    rungs = _rungs(ladder)
    outcomes = {kind: outcome_of(row) for kind, row in rungs.items()}
    room = outcomes.get(ORACLE)
    further = f" {ROOM}" if room == "better" else ""
    if outcomes.get("text") == "better":
        return TEXT_PAYS + further
    if "text" in rungs and rungs["text"].sometimes_dropped:
        return TEXT_DROPPED + further
    if room is None:
        return NO_TEXTS if without_texts(ladder) else NOT_ASKED
    if room not in ("better", "worse", LEFT_OUT, "interval includes zero"):
        return FEW
    return {"better": ROOM, "worse": HARM}.get(room, NO_ROOM)


def _model_arm(run: RunMetrics) -> RankerMetric | None:
    leading = leading_metric(run)
    return next((f for f in run.ranking if f.metric == leading and f.group == "all" and f.competitors), None)


def _of_model(arm: RankerMetric, goal: str) -> Answer:
    assert arm.difference is not None
    outcome = verdict(arm.difference, goal)
    text = f"{metric_text(arm.difference, signed=True)} {key_title(arm.metric)} over {counted(arm.n, 'user')}"
    beside = "; ".join(f"against {gap.against} {_short(gap, goal)}" for gap in arm.competitors)
    said = {
        "better": "Yes: the language model’s features are better than none",
        "worse": "No: the language model’s features make the ranker worse",
        "interval includes zero": "Not shown: the language model’s features do not measurably change the ranker",
        "identical": "No: the language model’s features change nothing",
    }.get(outcome, f"Not shown, {outcome}: there is no interval for the gain from the language model’s features")
    return Answer(f"{said}, {text} ({beside}).", outcome)


def _short(gap: Difference, goal: str) -> str:
    return f"{metric_text(gap, signed=True)}, {verdict(gap, goal)}"


def _of_ladder(ladder: Sequence[RungResult]) -> list[Answer]:
    said = {
        "text": "The texts of the items",
        ORACLE: "Features of the true next items, an upper bound for a language model,",
    }
    does = {
        "better": "improve a ranker: {gain} AUC over {before}.",
        "worse": "make a ranker worse: {gain} AUC over {before}.",
        LEFT_OUT: "do not pay off: the ranker drops them (if it always reads them: {always} AUC over {before}).",
        "interval includes zero": "do not measurably improve a ranker: {gain} AUC over {before}.",
    }
    answers = []
    for kind, row in _rungs(ladder).items():
        assert row.difference is not None
        outcome = outcome_of(row)
        beside = [counted(row.rows, "test row")] if row.rows else []
        if row.kept:
            beside.append(f"validation chose to use them in {row.kept:.0%} of the training runs")
        where = f" ({'; '.join(beside)})" if beside else ""
        text = does.get(outcome, f"cannot be evaluated: {outcome}.").format(
            gain=metric_text(row.difference, signed=True),
            always=metric_text(row.always_read, signed=True) if row.always_read else "",
            before=f"“{title_of_rung(row.difference.against)}”{where}",
        )
        if row.sometimes_dropped and row.always_read is not None:
            text = (
                f"improve a ranker that always reads them ({metric_text(row.always_read, signed=True)} AUC), but the default "
                f"ranker drops them in {1 - (row.kept or 0):.0%} of the training runs, and its own gain is not shown: "
                f"{metric_text(row.difference, signed=True)} AUC over “{title_of_rung(row.difference.against)}”."
            )
        answers.append(Answer(f"{said[kind]} {text}", outcome))
    return answers


def _rungs(ladder: Sequence[RungResult]) -> dict[str, RungResult]:
    """Return, by kind, the first rung with item texts and the first rung with the true next items (upper bound)."""
    found: dict[str, RungResult] = {}
    for kind, row in deciding_rungs(ladder):
        found.setdefault(kind, row)
    return found
