"""Comparison of each trained component with the baselines popularity and co-occurrence, and possible reasons why it
does not beat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taiji.cascade.log_slices import LogFacts

Row = Mapping[str, Any]
MANY = 0.1
"""Smallest share of requests without history, or of unknown targets, that is reported as a limit."""
FEW_PER_ITEM = 20.0
"""Interactions per item below which sparse data are reported as a limit."""


def component_findings(
    retrieval: Sequence[Row], slices: Sequence[Row], baselines: Mapping[str, str], metric: str
) -> list[dict[str, Any]]:
    """Return one finding per component that is not a baseline.

    Args:
        retrieval, slices: rows of :func:`taiji.metrics.list_evaluation.evaluate_lists`; rows of ``slices``
            also have ``slice``, the name of the slice.
        baselines: display names of the baselines, by arm.
        metric: metric of the comparison.

    Returns:
        dictionaries with ``component``, ``metric``, ``value``, its interval ``low`` to ``high``, ``comparisons``
        (paired differences from the baselines, each with a ``verdict``), ``beats`` (True if it beats all baselines,
        None if there are none) and ``reasons`` (sentences; empty if the component beats all baselines).
    """
    found = []
    for row in retrieval:
        if row["metric"] != metric or row["arm"] in baselines:
            continue
        pairs = [{**pair, "verdict": verdict(pair)} for pair in _pairs(row, baselines)]
        beats = all(pair["verdict"] == "better" for pair in pairs) if pairs else None
        behind = [pair for pair in pairs if pair["verdict"] != "better"]
        found.append(
            {
                "component": row["arm"],
                "metric": metric,
                "value": row["value"],
                "low": row["low"],
                "high": row["high"],
                "comparisons": pairs,
                "beats": beats,
                "reasons": _reasons(row, behind, slices, metric) if behind else [],
            }
        )
    return found


def verdict(pair: Row) -> str:
    """Return ``better``, ``worse``, ``open`` (the interval contains 0) or ``no interval``."""
    if pair["low"] is None or pair["high"] is None:
        return "no interval"
    return "better" if pair["low"] > 0 else "worse" if pair["high"] < 0 else "open"


def gap_text(pair: Row) -> str:
    """Return a difference with its interval."""
    if pair["value"] is None:
        return str(pair.get("reason", "undefined"))
    if pair["low"] is None:
        return f"{pair['value']:+.4f}"
    return f"{pair['value']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"


def _pairs(row: Row, baselines: Mapping[str, str]) -> list[Row]:
    every = [*([row["difference"]] if row.get("difference") else []), *row.get("competitors", [])]
    return [pair for pair in every if pair["against"] in baselines]


def _reasons(row: Row, behind: Sequence[Row], slices: Sequence[Row], metric: str) -> list[str]:
    """Return possible reasons why a component does not beat the baselines in ``behind``, as sentences.

    For each baseline, they state the smallest difference that can be resolved with this number of users, if the
    interval contains 0; the reason for a missing interval; and the slices with a significant difference.
    """
    arm, texts = row["arm"], []
    for pair in behind:
        if pair["verdict"] == "open":
            half = (pair["high"] - pair["low"]) / 2
            texts.append(
                f"With these {row['n']:,} users, differences from {pair['against']} below about {half:.3f} cannot be detected."
            )
        elif pair["verdict"] == "no interval":
            texts.append(f"Against {pair['against']}: {pair.get('reason', 'no interval')}.")
        parts = [s for s in slices if s["arm"] == arm and s["metric"] == metric]
        gaps = [(s["slice"], gap) for s in parts for gap in _pairs(s, {pair["against"]: ""})]
        for word, wanted in (("ahead of", "better"), ("behind", "worse")):
            told = [f"{name} ({gap_text(gap)})" for name, gap in gaps if verdict(gap) == wanted]
            if told:
                texts.append(f"It is {word} {pair['against']} for: {'; '.join(told)}.")
    return texts


def log_limits(facts: LogFacts) -> list[str]:
    """Return sentences on properties of the log that limit any model."""
    texts = []
    if facts.no_history >= MANY:
        texts.append(
            f"{facts.no_history:.0%} of the requests come from users without earlier interactions, so there is no history to use."
        )
    if facts.unknown_targets >= MANY:
        texts.append(
            f"{facts.unknown_targets:.0%} of the targets are items without interactions before the test period, which a model that learns from interactions cannot know."
        )
    if facts.had_before >= 0.3:
        texts.append(
            f"{facts.had_before:.0%} of the targets are items that the user had interacted with before the request."
        )
    if facts.per_item < FEW_PER_ITEM:
        texts.append(f"There are {facts.per_item:.1f} past interactions per item to learn from.")
    if facts.head_targets >= 0.5:
        texts.append(
            f"{facts.head_targets:.0%} of the targets are among the {facts.head:,} most popular items, which the popularity baseline already recommends."
        )
    return texts
