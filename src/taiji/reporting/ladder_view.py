"""View of the uplift ladder (:mod:`taiji.experiments.ladder`) for the report: sentences, and a table with a row per
rung and a column per log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taiji.core.number_format import number_text
from taiji.reporting.summary import LogLadder, RungResult, RunMetrics, mark_of, metric_text, tone_of, verdict

LEFT_OUT = "dropped: it does not pay off"
ORACLE = "a correct answer"
"""Kind of a rung whose ranker reads the true next items (upper bound)."""


def ladder_view(run: RunMetrics) -> dict[str, Any] | None:
    """Return the values that the templates show for the ladders of a run; None if it has none."""
    if not run.ladder:
        return None
    climbed = [{row.rung: row for row in log.ladder if row.group == "all"} for log in run.ladder]
    rungs = list(dict.fromkeys(rung for rows in climbed for rung in rows))
    table = [{"title": _title(rung), "cells": [_cell(rows.get(rung)) for rows in climbed]} for rung in rungs]
    return {
        "logs": [log.log for log in run.ladder],
        "rows": table,
        "headlines": [line for log in run.ladder for line in _headlines(log)],
        "twins": any(log.log.endswith("-null") for log in run.ladder),
        "decisions": run.ladder[0].decisions,
    }


def _kind(rung: str) -> str:
    """Return the kind of a rung: ``text``, ``control``, :data:`ORACLE`, or an empty text for any other rung."""
    if "control" in rung:
        return "control"
    return {"2": "text", "4": ORACLE}.get(rung.split(" ")[0], "")


def _title(rung: str) -> str:
    if "control" in rung:
        return f"… {rung.rpartition(', ')[2]} (control)"
    return title_of_rung(rung) if rung.startswith("0") else f"+ {title_of_rung(rung)}"


def title_of_rung(rung: str) -> str:
    """Return a rung's name without its number and its details."""
    number, _, name = rung.partition(":")[0].partition(" ")
    return name if number.isdigit() else rung


def _headlines(log: LogLadder) -> list[dict[str, str]]:
    """Return the sentences about texts and about correct answers, or the reason why the log has no ladder."""
    if log.left_out:
        return [
            {
                "text": f"{log.log}: the ladder is omitted",
                "verdict": log.left_out.splitlines()[0],
                "mark": "○",
                "tone": "open",
            }
        ]
    lines = []
    for kind, row in deciding_rungs(log.ladder):
        assert row.difference is not None
        said = "the texts of the items" if kind == "text" else "an answer that is always right"
        outcome = outcome_of(row)
        value = "" if row.kept == 0 else f" {metric_text(row.difference, signed=True)} AUC"
        lines.append(
            {
                "text": f"{log.log}: {said}{value}",
                "verdict": outcome,
                "mark": mark_of(outcome),
                "tone": tone_of(outcome),
            }
        )
    return lines


def deciding_rungs(ladder: Sequence[RungResult]) -> list[tuple[str, RungResult]]:
    """Return (kind, result) of each text or oracle rung that was evaluated on all rows and has a difference."""
    kinds = ((_kind(row.rung), row) for row in ladder if row.group == "all" and row.difference is not None)
    return [(kind, row) for kind, row in kinds if kind in ("text", ORACLE)]


def without_texts(ladder: Sequence[RungResult]) -> bool:
    """Return True if the text rungs could not be evaluated because no texts distinguish the items."""
    return any(row.unread and _kind(row.rung) == "text" for row in ladder)


def outcome_of(row: RungResult) -> str:
    """Return the verdict on a rung that has a difference, or :data:`LEFT_OUT` if the ranker drops the rung's fields."""
    assert row.difference is not None
    return LEFT_OUT if row.kept == 0 else verdict(row.difference)


def _cell(row: RungResult | None) -> dict[str, str]:
    """Return a table cell: the AUC of the first rung, or the gain of a later rung with sign and interval."""
    if row is None or row.auc is None:
        return {"value": "–", "note": "", "verdict": "not measured", "mark": "", "tone": ""}
    if row.difference is None:
        return {"value": number_text(row.auc, 3), "note": "", "verdict": "", "mark": "", "tone": ""}
    outcome = outcome_of(row)
    shown = metric_text(row.difference, signed=True)
    value, _, interval = shown.partition(" ")
    return {
        "value": "left out" if row.kept == 0 else value,
        "note": "" if row.kept == 0 else interval,
        "verdict": outcome,
        "mark": mark_of(outcome),
        "tone": tone_of(outcome),
    }
