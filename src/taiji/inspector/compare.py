"""Compare two runs: settings that differ, and the metrics of the first run beside those of the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from taiji.core.number_format import number_text
from taiji.inspector.run_view import RunFiles
from taiji.metrics.task_metrics import head_title, split_key, title_of
from taiji.reporting import charts
from taiji.reporting.report import ANSWER_METRICS
from taiji.reporting.summary import MetricValue, RunMetrics, digits_for, heads_of, metric_text, metrics_of


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys."""
    if isinstance(value, Mapping):
        return {key: leaf for name, part in value.items() for key, leaf in flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def settings_that_differ(first: RunFiles, second: RunFiles) -> list[tuple[str, str, str]]:
    """Return the keys of the settings that differ, with both values."""
    one, two = (flat(run.config.model_dump(mode="json")) for run in (first, second))
    return [
        (key, str(one.get(key, "–")), str(two.get(key, "–")))
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key)
    ]


def compare(first: RunFiles, second: RunFiles) -> dict[str, Any]:
    """Return the values of the comparison page.

    Each interval comes from its own run. There are no paired differences, because values per user are not stored. If
    the split fingerprints of the two runs are equal (``same``), their prompts are the same in all roles. Otherwise some
    prompts differ, but not necessarily the test prompts.
    """
    view: dict[str, Any] = {
        "settings": settings_that_differ(first, second),
        "groups": [],
        "same": None,
        "curves": None,
        "facts": [],
    }
    one, two = first.metrics, second.metrics
    if one is None or two is None:
        return view
    view["same"] = one.split.fingerprint == two.split.fingerprint
    view["groups"] = _answers(one, two) + _rankers(one, two)
    view["curves"] = {what: _curves(first.name, one, second.name, two, what) for what in ("rewards", "weights")}
    view["facts"] = [
        ("rationales written", one.rationales.written, two.rationales.written),
        ("rationales scored", one.rationales.choice[1], two.rationales.choice[1]),
        ("rationales kept", one.rationales.kept, two.rationales.kept),
        ("weighting rule", one.alignment.rule, two.alignment.rule),
        ("alignment steps", len(one.alignment.steps), len(two.alignment.steps)),
        ("computing time, minutes", number_text(first.seconds / 60, 1), number_text(second.seconds / 60, 1)),
    ]
    return view


def _answers(one: RunMetrics, two: RunMetrics) -> list[dict[str, Any]]:
    rows = {(f.metric, f.model): f for f in one.llm if f.kind == "model"}
    others = {(f.metric, f.model): f for f in two.llm if f.kind == "model"}
    return [
        _group(
            title,
            [(model, figure, others.get((metric, model))) for (name, model), figure in rows.items() if name == metric],
        )
        for metric, title in ANSWER_METRICS.items()
        if any(name == metric for name, _ in rows)
    ]


def _rankers(one: RunMetrics, two: RunMetrics) -> list[dict[str, Any]]:
    rows = {(f.group, f.metric, f.features): f for f in one.ranking}
    others = {(f.group, f.metric, f.features): f for f in two.ranking}
    found = []
    for group in dict.fromkeys(f.group for f in one.ranking):
        for head in heads_of(one):
            for key in metrics_of(one, head):
                own = [
                    (arm, figure, others.get((group, key, arm)))
                    for (g, m, arm), figure in rows.items()
                    if (g, m) == (group, key)
                ]
                if own:
                    title = f"{title_of(split_key(key)[1])}, {head_title(head)}"
                    found.append(_group(f"{title}, {group} users", own))
    return found


def _group(title: str, rows: Sequence[tuple[str, MetricValue, MetricValue | None]]) -> dict[str, Any]:
    """Return the values of a metric for each arm in both runs, on a common scale."""
    all_values = [figure for _, a, b in rows for figure in (a, b) if figure is not None]
    scale, digits = charts.span_of([(f.value, f.low, f.high) for f in all_values]), digits_for(all_values)
    shown = []
    for arm, one, two in rows:
        cells = [
            None
            if f is None
            else {
                "text": metric_text(f, digits),
                "track": charts.interval_track(f.value, f.low, f.high, scale, tone=f"s{number}"),
            }
            for number, f in enumerate((one, two))
        ]
        shown.append({"name": arm, "cells": cells, "apart": _apart(one, two)})
    return {"title": title, "rows": shown}


def _apart(one: MetricValue, two: MetricValue | None) -> bool:
    """Return True if the two intervals are disjoint.

    The result is False if a bound is missing, or if an interval has zero width without being exact (``identity``).
    """
    if two is None or None in (one.low, one.high, two.low, two.high):
        return False
    if any(figure.low == figure.high and figure.method != "identity" for figure in (one, two)):
        return False
    return bool(one.high < two.low or two.high < one.low)  # type: ignore[operator]


def _curves(name: str, one: RunMetrics, other: str, two: RunMetrics, what: str) -> Markup:
    steps = sorted({step.step for run in (one, two) for step in run.alignment.steps})
    series: dict[str, list[float | None]] = {}
    for label, run in ((name, one), (other if other != name else f"{other} (2)", two)):
        by_step = {step.step: step.values(what) for step in run.alignment.steps}
        for reward in dict.fromkeys(reward for values in by_step.values() for reward in values):
            series[f"{reward}, {label}"] = [by_step.get(step, {}).get(reward) for step in steps]
    return charts.line_chart(
        series,
        steps,
        label=f"{what} at each step, both runs",
        bounds=(0.0, 1.0) if what == "weights" else None,
        noisy=what == "rewards",
    )
