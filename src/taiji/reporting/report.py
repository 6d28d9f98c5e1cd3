"""``report.html``: one self-contained page with a run's results and conclusions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

import taiji
from taiji.core.artifacts import write_text
from taiji.core.number_format import counted, general_text, number_text, thousands
from taiji.data.reading_report import ReadingReport
from taiji.data.reading_tables import reading_tables
from taiji.metrics.task_metrics import head_title, split_key, title_of
from taiji.reporting import charts
from taiji.reporting.audit_view import audit_view
from taiji.reporting.conclusion import conclusion
from taiji.reporting.ladder_view import ladder_view
from taiji.reporting.summary import (
    MARKS,
    Difference,
    MetricValue,
    ModelMetric,
    RankerMetric,
    RunMetrics,
    check_metrics,
    digits_for,
    findings,
    goal_of,
    heads_of,
    mark_of,
    metric_text,
    metrics_of,
    tone_of,
    verdict,
)

ANSWER_METRICS = {
    **{f"category_l{level}": f"Category L{level}" for level in range(1, 10)},
    "hit@50": "Title hit@50",
    "hit@100": "Title hit@100",
    "ctcvr": "Click and conversion rate, predicted (CTCVR)",
    "format": "Well-formed",
    "grounding": "Grounding similarity",
    "grounding_low": "Not grounded",
    "coverage": "Coverage of the next items",
    "redundancy": "Redundancy",
    "intents": "Intents",
}
PANELS = ("category_l", "hit@", "ctcvr", "coverage")
"""Name prefixes of the answer metrics with charts."""
PROMPT_ROWS = tuple(f"{role} prompts" for role in ("rationale", "calibration", "alignment", "test"))
"""Names of the prompt counts, in the order in which the run uses the prompts."""
PAPER = (
    ("Category L1 accuracy", ".1560", ".1974", ".2012", ".2347", ".2433"),
    ("Category L2 accuracy", ".0608", ".0767", ".0690", ".0877", ".0888"),
    ("Category L3 accuracy", ".0251", ".0039", ".0245", ".0307", ".0347"),
    ("Title hit rate @50", ".0496", ".0563", ".0449", ".0558", ".0567"),
    ("Title hit rate @100", ".0646", ".0733", ".0606", ".0762", ".0720"),
    ("CTCVR", ".003417", ".003675", ".003723", ".003802", ".003816"),
)
"""Offline results claimed by arXiv 2606.03866: without intervals, on private data, with a 7B model."""
FILTERS = {
    "counted": counted,
    "thousands": thousands,
    "fixed": number_text,
    "percent": lambda share: f"{number_text(100 * share, 0)}%",
}
"""Number formats of the templates."""


def write_report(
    path: str | Path,
    metrics: Mapping[str, Any],
    *,
    rationales: Sequence[Mapping[str, Any]] = (),
    audit: Mapping[str, Any] | None = None,
    prompt: str | None = None,
    configuration: Mapping[str, Any] | None = None,
    cards: Mapping[str, str] | None = None,
    reading: ReadingReport | None = None,
) -> None:
    """Write the report atomically.

    Args:
        path: the HTML file.
        metrics: the content of ``metrics.json`` (see :mod:`taiji.reporting.summary`).
        rationales: example rationales, with ``kept`` (bool), ``reason``, ``perplexity``, ``target``, ``rationale``,
            ``user``.
        audit: result of :func:`taiji.reasoning.audit.audit_run`.
        prompt: an example of a prompt.
        configuration: every setting of the run.
        cards: name → file next to the report.
        reading: reading report on the contents of the data source and their use.

    Raises:
        ArtifactError: the metrics lack a key or have the wrong form.
    """
    write_text(
        path,
        render_report(
            metrics,
            rationales=rationales,
            audit=audit,
            prompt=prompt,
            configuration=configuration,
            cards=cards,
            reading=reading,
        ),
    )


def render_report(
    metrics: Mapping[str, Any],
    *,
    rationales: Sequence[Mapping[str, Any]] = (),
    audit: Mapping[str, Any] | None = None,
    prompt: str | None = None,
    configuration: Mapping[str, Any] | None = None,
    cards: Mapping[str, str] | None = None,
    reading: ReadingReport | None = None,
) -> str:
    """Return the page as text; the arguments are those of :func:`write_report`."""
    from jinja2 import Environment, PackageLoader

    run = check_metrics(metrics)
    environment = Environment(
        loader=PackageLoader("taiji.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    return environment.get_template("report.html.j2").render(
        **page_values(run),
        today=date.today().isoformat(),
        rationales=sorted((dict(row) for row in rationales), key=lambda row: not row["kept"]),
        audit=audit_view(audit),
        paper=PAPER,
        prompt=prompt,
        cards=cards or {},
        reading=reading_view(reading),
        configuration=None
        if configuration is None
        else json.dumps(configuration, indent=2, ensure_ascii=False, default=str),
    )


def reading_view(reading: ReadingReport | None) -> dict[str, Any] | None:
    """Return the values that the templates show for a reading report; None if there is no report."""
    if reading is None:
        return None
    return {"findings": [finding.text for finding in reading.findings], "tables": reading_tables(reading)}


def page_values(run: RunMetrics) -> dict[str, Any]:
    """Return a run's metrics and charts as values of the templates, for the report and other pages."""
    return {
        "run": run,
        "version": taiji.__version__,
        "conclusion": conclusion(run),
        "findings": _findings(run),
        "ladder": ladder_view(run),
        "periods": _periods(run),
        "totals": _totals(run),
        "histogram": charts.histogram(
            run.rationales.perplexities, run.rationales.threshold, label="Perplexities of the true answer"
        ),
        "rewards": curves(run, "rewards"),
        "weights": curves(run, "weights"),
        "panels": _answer_panels(run),
        "answers": _answer_table(run),
        "gaps": _ranker_gaps(run),
        "rankers": _ranker_tables(run),
        "stages": _stages(run),
        "level": f"{general_text(100 * run.level)}%",
    }


def _totals(run: RunMetrics) -> dict[str, int]:
    """Return the counts shown as tiles: prompts in the order of their use, then counts of other stages."""
    rows = run.split.rows
    prompts = [name for name in PROMPT_ROWS if name in rows]
    others = [name for name in rows if name not in PROMPT_ROWS and name.split(" ")[0] not in run.split.dates]
    return {name: rows[name] for name in (*prompts, *others)}


def _findings(run: RunMetrics) -> list[dict[str, str]]:
    """Return the sentences of the summary with verdict and mark."""
    rows = []
    for sentence in findings(run):
        head, _, outcome = sentence.rpartition(": ")
        rows.append(
            {
                "text": head,
                "verdict": outcome,
                "mark": mark_of(outcome),
                "tone": tone_of(outcome),
            }
        )
    return rows


def _periods(run: RunMetrics) -> list[dict[str, Any]]:
    """Return the split's periods with their shares of the total time."""
    days = {
        name: max((date.fromisoformat(end[:10]) - date.fromisoformat(start[:10])).days, 1)
        for name, (start, end) in run.split.dates.items()
    }
    total = sum(days.values())
    use = {
        "reward": "trains the reward ranker",
        "llm": "trains the language model",
        "ranker": "trains the rankers that are compared",
        "test": "evaluates everything",
    }
    return [
        {
            "name": name,
            "start": start[:10],
            "end": end[:10],
            "share": 100 * days[name] / total,
            "rows": _rows_of(run, name),
            "use": use.get(name, ""),
        }
        for name, (start, end) in run.split.dates.items()
    ]


def _rows_of(run: RunMetrics, period: str) -> str:
    """Return a text with the counts whose names begin with the period, such as ``test exposures``."""
    own = [
        (name.removeprefix(period).strip() or "rows", count)
        for name, count in run.split.rows.items()
        if name.split(" ")[0] == period
    ]
    return ", ".join(f"{count:,} {what}" for what, count in own)


def curves(run: RunMetrics, what: str, marker: int | None = None) -> Markup:
    """Draw the curves of the values named ``what`` (``rewards``, ``weights`` or ``indicator``) over the steps.

    If ``marker`` is given, this step is marked.
    """
    steps = run.alignment.steps
    names = dict.fromkeys(name for step in steps for name in step.values(what))
    series = {name: [step.values(what).get(name) for step in steps] for name in names}
    return charts.line_chart(
        series,
        [step.step for step in steps],
        label=f"{what} at each step",
        bounds=(0.0, 1.0) if what == "weights" else None,
        noisy=what != "weights",
        marker=marker,
    )


def _answer_panels(run: RunMetrics) -> list[dict[str, Any]]:
    """Return one panel per metric, with every model, baseline and oracle on one scale."""
    models = list(dict.fromkeys(f.model for f in run.llm if f.kind == "model"))
    panels = []
    for metric in ANSWER_METRICS:
        figures = [f for f in run.llm if f.metric == metric]
        if figures and metric.startswith(PANELS):
            scale, digits = (
                charts.span_of([(f.value, f.low, f.high) for f in figures if f.kind != "oracle"] or [(0, 0, 1)]),
                digits_for(figures),
            )
            rows = [
                {
                    "name": f.model,
                    "kind": f.kind,
                    "track": charts.interval_track(
                        f.value,
                        f.low,
                        f.high,
                        scale,
                        tone=f"s{models.index(f.model) % 6}" if f.kind == "model" else "baseline",
                    ),
                    "value": "–" if f.value is None else number_text(f.value, digits),
                }
                for f in figures
            ]
            panels.append({"title": ANSWER_METRICS[metric], "rows": rows})
    return panels


def _answer_table(run: RunMetrics) -> dict[str, Any]:
    shown = [metric for metric in ANSWER_METRICS if any(f.metric == metric for f in run.llm)]
    digits = {metric: digits_for([f for f in run.llm if f.metric == metric]) for metric in shown}
    rows = []
    for model in dict.fromkeys(f.model for f in run.llm):
        own: dict[str, ModelMetric] = {f.metric: f for f in run.llm if f.model == model}
        rows.append(
            {
                "name": model,
                "kind": next(iter(own.values())).kind,
                "cells": [_cell(own.get(metric), digits[metric]) for metric in shown],
            }
        )
    first = next((f.model for f in run.llm if f.kind == "model"), None)
    return {"columns": [ANSWER_METRICS[metric] for metric in shown], "rows": rows, "against": first}


def _ranker_gaps(run: RunMetrics) -> list[dict[str, Any]]:
    """Return the paired differences of the rankers' metrics: one panel per group and metric, with zero marked."""
    groups = []
    for group in dict.fromkeys(f.group for f in run.ranking):
        panels = []
        for place, head in enumerate(heads_of(run)):
            for key in metrics_of(run, head, full=place == 0):
                pairs = [
                    (f.features, f.difference)
                    for f in run.ranking
                    if f.group == group and f.metric == key and f.difference
                ]
                if pairs and goal_of(key) != "one":
                    panels.append(_gap_panel(key, pairs))
        if panels:
            groups.append(
                {
                    "group": group,
                    "against": next(f.difference.against for f in run.ranking if f.difference),
                    "panels": panels,
                }
            )
    return groups


def _gap_panel(key: str, pairs: Sequence[tuple[str, Difference]]) -> dict[str, Any]:
    """Return one metric's paired differences on one scale."""
    gaps, goal, (head, metric) = [gap for _, gap in pairs], goal_of(key), split_key(key)
    scale, digits = charts.span_of([(g.value, g.low, g.high) for g in gaps], zero=True), digits_for(gaps)
    rows = []
    for arm, gap in pairs:
        outcome = verdict(gap, goal)
        tone = outcome if outcome in ("better", "worse") else "open"
        rows.append(
            {
                "name": arm,
                "track": charts.interval_track(gap.value, gap.low, gap.high, scale, tone=tone, zero=True),
                "value": metric_text(gap, digits, signed=True),
                "verdict": outcome,
                "mark": mark_of(outcome),
                "tone": tone,
            }
        )
    note = "lower is better" if goal == "low" else "higher is better"
    return {"title": title_of(metric), "note": f"{head_title(head)}; {note}", "rows": rows}


def _ranker_tables(run: RunMetrics) -> list[dict[str, Any]]:
    tables = []
    for group in dict.fromkeys(f.group for f in run.ranking):
        for head in heads_of(run):
            figures = [f for f in run.ranking if f.group == group and split_key(f.metric)[0] == head]
            shown = [key for key in metrics_of(run, head) if any(f.metric == key for f in figures)]
            digits = {key: digits_for([f for f in figures if f.metric == key]) for key in shown}
            rows = []
            for arm in dict.fromkeys(f.features for f in figures):
                own: dict[str, RankerMetric] = {f.metric: f for f in figures if f.features == arm}
                rows.append({"name": arm, "cells": [_cell(own.get(key), digits[key]) for key in shown]})
            if rows:
                tables.append(
                    {
                        "group": group,
                        "head": head_title(head),
                        "users": max(f.n for f in figures),
                        "columns": [title_of(split_key(key)[1]) for key in shown],
                        "rows": rows,
                    }
                )
    return tables


def _cell(figure: MetricValue | None, digits: int) -> dict[str, str]:
    """Return a table cell: value, interval, and the mark of the metric's paired difference."""
    if figure is None or figure.value is None:
        return {"value": "–", "interval": "", "mark": "", "tone": "", "tip": ""}
    value, interval = number_text(figure.value, digits), ""
    if figure.low is not None and figure.high is not None:
        interval = f"{number_text(figure.low, digits)}–{number_text(figure.high, digits)}"
    mark = tone = tip = ""
    if figure.difference:
        outcome = verdict(figure.difference, goal_of(figure.metric))
        mark, tone = MARKS.get(outcome, ""), outcome if outcome in ("better", "worse") else ""
        tip = f"against {figure.difference.against}: {metric_text(figure.difference, signed=True)}, {outcome}"
    if figure.low is None and figure.reason:
        tip = f"no interval: {figure.reason}" + (f"; {tip}" if tip else "")
    return {"value": value, "interval": interval, "mark": mark, "tone": tone, "tip": tip}


def _stages(run: RunMetrics) -> dict[str, Any]:
    longest = max(run.seconds.values(), default=1.0) or 1.0
    return {
        "total": clock(sum(run.seconds.values())),
        "rows": [
            {"name": name, "time": clock(seconds), "share": 100 * seconds / longest}
            for name, seconds in run.seconds.items()
        ],
    }


def clock(seconds: float) -> str:
    """Return a duration as text, such as ``4.2 s``, ``3 min 05 s`` or ``1 h 20 min``."""
    if seconds < 60:
        return f"{number_text(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
