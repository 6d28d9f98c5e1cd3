"""View of the leakage audit for the report: results of :func:`taiji.reasoning.audit.audit_run` as sentences, interval
charts and cards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from taiji.core.number_format import number_text
from taiji.reporting import charts

CONTROL_TITLES = {
    "answer": "the answer",
    "own": "own rationale",
    "other": "another user's",
    "shuffled": "own, shuffled",
    "empty": "no rationale",
}
LIFTS = (
    ("decoys", "target lift", "the true item", "lift under the same rationale"),
    ("decoys", "neighbourhood lift", "others of its category", "lift under the same rationale"),
    ("decoys", "specificity", "specificity", "the first minus the second: a leak lifts only the true item"),
    ("blind_gap", "teacher", "answer in view", "lift of the teacher's rationales, mentions redacted"),
    ("blind_gap", "blind", "answer not in view", "lift of the student's own rationales"),
    ("blind_gap", "gap", "blind gap", "the first minus the second"),
)
MEASURE_TITLES = {
    "ppl": "perplexity of the answer",
    "ppl_values": "perplexity of title and categories, without labels",
    "ppl_title": "perplexity of the title only",
    "ppl_category": "perplexity of the categories only",
    "ppl_masked": "perplexity of the answer, mentions redacted",
    "ppl_none": "perplexity of the answer, no rationale",
    "lift": "lift",
    "leak_share": "leak share",
}
TONES = {"holds": "", "reversed": "alarm", "not shown": "neutral"}
ORDER_MARKS = {"holds": ("better", "▲"), "reversed": ("worse", "▼"), "not shown": ("open", "○")}


def audit_view(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the values that the template ``audit.html.j2`` shows for an audit; None if there is no audit."""
    if not audit:
        return None
    order = audit["order"]
    # Audits of earlier versions store only whether the means have the expected order.
    verdict = order.get("verdict") or ("holds" if order["holds"] else "reversed")
    return {
        "rows": audit["rows"],
        "sample": audit["controls"]["own"]["n"],
        "says": order["says"],
        "tone": TONES[verdict],
        "blind": audit["blind_gap"]["gap"]["n"] if audit["blind_gap"] else 0,
        "controls": _controls(audit["controls"]),
        "steps": _steps(audit["controls"], order["steps"]),
        "lifts": _lifts(audit),
        "shares": [
            *audit["leaking"].items(),
            ("names the item", audit["lexical"]["title"]),
            ("names a third category level that the history lacks", audit["lexical"]["unseen L3"]),
            ("mentions the answer", audit["lexical"]["forbidden"]),
        ],
        "preference": [
            (f"{who} its item", audit["preference"][key])
            for key, who in (("kept of naming", "names"), ("kept of others", "does not name"))
            if audit["preference"][key] is not None
        ],
        "quantiles": [f"{float(q):.0%}" for q in audit["distributions"]["ppl"]],
        "distributions": [
            (MEASURE_TITLES[name], ["–" if value is None else number_text(value, 2) for value in values.values()])
            for name, values in audit["distributions"].items()
        ],
        "worst": [(name, [_card(row) for row in rows]) for name, rows in audit["worst"].items() if rows],
    }


def _controls(controls: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the perplexities (geometric means) on one logarithmic scale."""
    scale = charts.span_of([_triple(controls[name]) for name in CONTROL_TITLES])
    return [
        {
            "name": label,
            "track": charts.interval_track(
                *_triple(controls[name]), scale, tone="baseline" if name == "empty" else "s0"
            ),
            "value": "–" if controls[name]["value"] is None else number_text(math.exp(controls[name]["value"]), 2),
        }
        for name, label in CONTROL_TITLES.items()
    ]


def _steps(controls: Mapping[str, Any], steps: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the paired differences between neighbours in the expected order of the controls."""
    figures = [controls[f"{step['higher']} - {step['lower']}"] for step in steps]
    scale = charts.span_of([_triple(figure) for figure in figures], zero=True)
    return [
        {
            "name": f"{CONTROL_TITLES[step['lower']]} < {CONTROL_TITLES[step['higher']]}",
            **_gap(figure, scale, *ORDER_MARKS[step["verdict"]]),
        }
        for step, figure in zip(steps, figures)
    ]


def _lifts(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [
        (name, note, audit[part][key])
        for part, key, name, note in LIFTS
        if audit[part] and audit[part][key]["value"] is not None
    ]
    scale = charts.span_of([_triple(figure) for *_, figure in found], zero=True)
    return [{"name": name, "note": note, **_gap(figure, scale, "open", "")} for name, note, figure in found]


def _gap(figure: Mapping[str, Any], scale: tuple[float, float], tone: str, mark: str) -> dict[str, Any]:
    value, low, high = _triple(figure)
    return {
        "track": charts.interval_track(value, low, high, scale, tone=tone, zero=True),
        "value": _signed(value) if low is None else f"{_signed(value)} [{_signed(low)}, {_signed(high)}]",
        "n": figure["n"],
        "tone": tone,
        "mark": mark,
    }


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    ppl, masked, none = (number_text(row[name], 2) for name in ("ppl", "ppl_masked", "ppl_none"))
    share = "" if row["leak_share"] is None else f", leak share {number_text(row['leak_share'], 2)}"
    figures = f"perplexity {ppl}; with mentions redacted {masked}; without a rationale {none}{share}"
    return {
        **row,
        "figures": figures,
        "reasons": "; ".join(row["reasons"]),
        "masked": row["masked"] if row["masked"] != row["rationale"] else "",
    }


def _signed(value: float) -> str:
    return number_text(value, 3, signed=True)


def _triple(figure: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return figure["value"], figure["low"], figure["high"]
