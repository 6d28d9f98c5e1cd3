"""``recommendation.html``: one page with the results of a recommender, the components that do not pay off, and possible
reasons from the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import taiji
from taiji.core.artifacts import write_text
from taiji.core.number_format import counted, general_text, number_text, real_minus
from taiji.core.sentences import listed
from taiji.reporting.conclusion import Answer, Conclusion
from taiji.reporting.report import FILTERS

Row = Mapping[str, Any]
NAMES = {"ndcg": "NDCG", "hit": "Hit rate", "true_reward": "True reward", "true_clicks": "True clicks"}
"""Titles of metrics. The title of any other metric is its capitalised name."""
LIST_METRICS = ("true_reward", "ndcg", "true_clicks", "recall", "hit", "coverage", "novelty", "diversity")
"""Metrics of lists in display order."""
UNJUDGED = ("coverage", "novelty", "diversity")
"""Metrics without a better direction."""
MARKS = {"better": "▲", "worse": "▼", "different": "◆", "open": "○", "no interval": "○"}
WORDS = {
    "better": "better",
    "worse": "worse",
    "open": "no difference shown",
    "no interval": "too little data",
}
ALONE = "popularity alone"
"""Variant of the final list that contains the most popular items, the baseline of the whole recommender."""
SERVE = "Serve the lists with `taiji serve`."
MORE = "Try other retrievers, another ranker or more data: these lists are not shown to be better than popularity."
LOOP_METRICS = {
    "reward": "Reward",
    "click": "Clicks",
    "buy": "Purchases",
    "watch": "Seconds watched",
    "pleased": "Pleased",
    "requests": "Requests",
    "active_days": "Active days",
}


def recommendation_values(
    found: Row, loop: Row | None = None, seconds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the values that the template ``recommendation_body.html.j2`` shows as ``recommender``.

    Args:
        found: content of ``recommendation.json``.
        loop: content of ``closed_loop.json``.
        seconds: seconds per stage.
    """
    retrieval = [row for row in found["retrieval"] if row["metric"].startswith("recall@")]
    lists = [row for row in found["lists"] if row["metric"].partition("@")[0] in LIST_METRICS]
    lists.sort(key=lambda row: LIST_METRICS.index(row["metric"].partition("@")[0]))
    return {
        "found": found,
        "level": level_text(found),
        "verdicts": [_component(row) for row in found.get("components", ())],
        "conclusion": recommendation_conclusion(found),
        "retrieval": _table(retrieval, "arm"),
        "slices": _slices(found.get("slices", ())),
        "lists": _table(lists, "arm"),
        "path": _path(found, seconds or {}),
        "off_policy": _off_policy(found.get("off_policy"), found),
        "loop": None if loop is None else _loop(loop),
        "facts": _facts(found.get("log") or {}) | _features(found.get("features")),
        "limits": (found.get("log") or {}).get("limits", []),
    }


def level_text(found: Row) -> str:
    """Return the coverage of the intervals of ``recommendation.json``, such as ``95%``.

    Files of earlier versions do not store it: their coverage is 95%.
    """
    return f"{general_text(100 * found.get('level', 0.95))}%"


def render_recommendation(
    name: str, found: Row, loop: Row | None, seconds: Mapping[str, float], configuration: Row
) -> str:
    """Return the page as text; the arguments are those of :func:`write_recommendation`."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("taiji.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    return environment.get_template("recommendation.html.j2").render(
        recommender=recommendation_values(found, loop, seconds),
        name=name,
        version=taiji.__version__,
        today=date.today().isoformat(),
        configuration=json.dumps(configuration, indent=2, ensure_ascii=False, default=str),
    )


def write_recommendation(
    path: Path, name: str, found: Row, loop: Row | None, seconds: Mapping[str, float], configuration: Row
) -> None:
    """Write the page atomically.

    Args:
        path: the HTML file.
        name: name of the run.
        found, loop, seconds: see :func:`recommendation_values`.
        configuration: every setting.
    """
    write_text(path, render_recommendation(name, found, loop, seconds, configuration))


def recommendation_conclusion(found: Row) -> Conclusion | None:
    """Return the question, the answers and the next step for a recommender; None if no request was evaluated.

    The first answer compares the final list with popularity alone. The others name the components that beat both
    popularity and co-occurrence, and those that do not.
    """
    if not found["requests"]:
        return None
    answers = []
    row = next((row for row in _judged(found) if row["arm"] == ALONE and row.get("difference")), None)
    if row is not None:
        gap = row["difference"]  # of popularity alone, from the list with all components
        ends = [None if gap[end] is None else -gap[end] for end in ("high", "low")]
        gain = {**gap, "value": None if gap["value"] is None else -gap["value"], "low": ends[0], "high": ends[1]}
        tone = tone_of(gain)
        said = {"better": "Yes: the lists are better than", "worse": "No: the lists are worse than"}.get(
            tone, "Not shown: the lists are not measurably better than"
        )
        text = f"{said} popularity alone, {bracketed(gain, signed=True)} {metric_title(row['metric'])} over {counted(found['requests'], 'request')}."
        answers.append(Answer(text, tone or "interval includes zero"))
    made = [_component(row) for row in found.get("components", ()) if row["beats"] is not None]
    for beats, said in ((True, "better"), (False, "not shown to be better")):
        names = [row["name"] for row in made if (row["mark"] == "better") == beats]
        if names:
            against = " and ".join(pair["against"] for pair in made[0]["pairs"])
            text = f"Candidates {said} than those of {against}, by {made[0]['metric']}: {listed(names)}."
            answers.append(Answer(text, "better" if beats else "interval includes zero"))
    if not answers:
        return None
    advice = _advice(found)
    if answers[0].outcome == "better":
        advice.append(SERVE)
    asked = f"Does this recommender beat popularity on {found['data']}?"
    return Conclusion(asked, tuple(answers), " ".join(advice) or MORE)


def _judged(found: Row) -> list[Row]:
    """Return the rows of the final lists in the metric by which components are judged: ``true_reward`` if there is one,
    otherwise ``ndcg``."""
    names = {row["metric"].partition("@")[0] for row in found["lists"]}
    judged = next((name for name in LIST_METRICS[:2] if name in names), None)
    return [row for row in found["lists"] if row["metric"].partition("@")[0] == judged]


def _advice(found: Row) -> list[str]:
    """Return advice based on the ablation of the final list; empty if nothing was ablated.

    The advice is to keep a component if the list is worse without it.
    """
    gaps = {
        row["arm"].partition("without ")[2]: tone_of(row.get("difference"))
        for row in _judged(found)
        if "without " in row["arm"]
    }
    said = []
    for tone, one, many in (
        ("worse", "Keep {}: the list is worse without it.", "Keep {}: the list is worse without each of them."),
        ("better", "Leave out {}: the list is better without it.", "Leave out {}, one at a time: the list is better without each."),
        (
            "",
            "No effect of {} on the list is shown. It costs time, so evaluate again without it.",
            "No effect of {} on the list is shown. Each costs time, so leave out one at a time and evaluate again.",
        ),
    ):  # fmt: skip
        names = [name for name, found_tone in gaps.items() if found_tone == tone]
        if names:
            said.append((one if len(names) == 1 else many).format(listed(names)))
    return said


def metric_title(metric: str) -> str:
    """Return a metric's display name, such as ``NDCG@10``."""
    name, at, depth = metric.partition("@")
    return NAMES.get(name, name.capitalize()) + at + depth


def value_text(row: Row, *, signed: bool = False) -> tuple[str, str]:
    """Return a value and its interval, or the reason why there is none."""
    if row["value"] is None:
        return "–", str(row.get("reason", "undefined"))
    places = 1 if abs(row["value"]) >= 100 else 2 if abs(row["value"]) >= 10 else 4
    interval = str(row.get("reason", ""))
    if row["low"] is not None and row["high"] is not None and row["low"] != row["high"]:
        low, high = (number_text(row[end], places, signed=signed) for end in ("low", "high"))
        interval = f"[{low}, {high}]"
    return number_text(row["value"], places, signed=signed), interval


def bracketed(row: Row, *, signed: bool = False) -> str:
    """Return a value with its interval in square brackets, or with the reason why there is none in round ones."""
    value, interval = value_text(row, signed=signed)
    return f"{value} {interval if interval.startswith('[') else f'({interval})'}" if interval else value


def tone_of(gap: Row | None, *, judged: bool = True) -> str:
    """Return ``better``, ``worse`` or ``different`` if the interval of a paired difference excludes 0, else
    an empty text."""
    if gap is None or gap["low"] is None or gap["high"] is None or gap["low"] <= 0 <= gap["high"]:
        return ""
    return ("better" if gap["low"] > 0 else "worse") if judged else "different"


def _cell(row: Row) -> dict[str, str]:
    gap = row.get("difference")
    tone = tone_of(gap, judged=row["metric"].partition("@")[0] not in UNJUDGED)
    value, interval = value_text(row)
    tip = "" if gap is None else " ".join((f"against {gap['against']}:", *value_text(gap, signed=True)))
    if row.get("reason"):  # the cell is too small for a sentence: show it as a tooltip
        interval, tip = "no interval", row["reason"]
    return {"value": value, "interval": interval, "tone": tone, "mark": MARKS.get(tone, ""), "tip": tip}


def _table(rows: Sequence[Row], key: str) -> dict[str, Any]:
    """Return columns and rows of a table of metrics by arm."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row[key], row["metric"]): _cell(row) for row in rows}
    empty = {"value": "–", "interval": "", "tone": "", "mark": "", "tip": ""}
    against = next((row["difference"]["against"] for row in rows if row.get("difference")), "")
    return {
        "columns": [metric_title(metric) for metric in metrics],
        "rows": [
            {"name": name, "cells": [cells.get((name, metric), empty) for metric in metrics]}
            for name in dict.fromkeys(row[key] for row in rows)
        ],
        "against": against,
    }


def _component(row: Row) -> dict[str, Any]:
    """Return a finding about a component as a sentence, with the component's comparisons and reasons."""
    pairs = []
    for pair in row["comparisons"]:
        verdict = pair["verdict"]
        pairs.append(
            {
                "against": pair["against"],
                "text": bracketed(pair, signed=True),
                "tone": verdict if verdict in ("better", "worse") else "open",
                "mark": MARKS[verdict],
                "word": WORDS[verdict],
            }
        )
    missed = [pair["against"] for pair in pairs if pair["tone"] != "better"]
    if row["beats"] is None:
        text = "is not compared: neither popularity nor co-occurrence is among the retrievers"
    elif row["beats"]:
        text = f"beats {' and '.join(pair['against'] for pair in pairs)}"
    else:
        text = f"does not beat {' or '.join(missed)}"
    return {
        "name": row["component"],
        "metric": metric_title(row["metric"]),
        "value": bracketed(row),
        "text": text,
        "mark": "better" if row["beats"] else "worse" if any(pair["tone"] == "worse" for pair in pairs) else "open",
        "pairs": pairs,
        "reasons": [real_minus(reason) if "[" in reason else reason for reason in row["reasons"]],
    }


def _slices(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return recall by slice (rows) and arm (columns)."""
    if not rows:
        return None
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    cells = {(row["slice"], row["arm"]): _cell(row) for row in rows}
    counts = {row["slice"]: row["requests"] for row in rows}
    return {
        "metric": metric_title(rows[0]["metric"]),
        "against": next((row["difference"]["against"] for row in rows if row.get("difference")), ""),
        "columns": arms,
        "rows": [
            {"name": name, "requests": n, "cells": [cells[name, arm] for arm in arms]} for name, n in counts.items()
        ],
    }


def _path(found: Row, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the steps of the request path, each with its number of remaining candidates, milliseconds per request, and
    seconds of fitting."""
    candidates, spent = found.get("candidates", {}), found["milliseconds"]
    steps = [f"retrieve: {name}" for name in found["retrievers"]]
    steps += [step for step in spent if step not in steps]
    fitted = {f"retrieve: {name}": seconds.get(f"retriever-{name}") for name in found["retrievers"]}
    fitted["rank"] = seconds.get("candidate_ranker")
    rows = [
        {"step": step, "candidates": candidates.get(step), "milliseconds": spent.get(step), "seconds": fitted.get(step)}
        for step in steps
    ]
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    total = {"step": "together", "candidates": candidates.get("list"), "milliseconds": sum(spent.values())}
    return [*rows, {**total, "seconds": sum(known) if known else None}] if rows else []


def _off_policy(found: Row | None, whole: Row) -> dict[str, Any] | None:
    """Return the off-policy value of the lists, in clicks per item shown, and, in a simulated world, their true
    value."""
    if found is None:
        return None
    truth = {row["arm"]: row for row in whole["lists"] if row["metric"].startswith("true_clicks@")}
    truth["popularity alone"] = truth.get("popularity alone", {})
    rows = []
    for arm in found["arms"]:
        known = truth.get(arm["arm"]) or None
        rows.append(
            {
                "name": arm["arm"],
                "matched": arm["matched"],
                "weight": number_text(arm["mean_weight"], 2),
                "ips": value_text(arm["ips"]),
                "snips": value_text(arm["snips"]),
                "gain": value_text(arm["gain"], signed=True),
                "tone": tone_of(arm["gain"]),
                "truth": None if known is None else number_text(known["value"] / max(whole["length"], 1), 4),
            }
        )
    return {
        "requests": found["requests"],
        "exposures": found["exposures"],
        "logged": value_text(found["logged"]),
        "rows": rows,
        "truth": any(row["truth"] for row in rows),
    }


def _loop(loop: Row) -> dict[str, Any]:
    rows = [row for row in loop["metrics"] if row["metric"] in LOOP_METRICS]
    table = _table(rows, "policy")
    names = dict.fromkeys(row["metric"] for row in rows)
    return {**table, "columns": [LOOP_METRICS[name] for name in names], "users": loop["users"], "days": loop["days"]}


def _features(features: Row | None) -> dict[str, str]:
    """Return facts about the ranker's features: their run, shares of requests and exposures with features, and age."""
    if features is None:
        return {}
    return {
        f"requests whose user had features of {features['run']}": f"{features['evaluation']['coverage']:.0%}",
        "training exposures whose user had features": f"{features['training']['coverage']:.0%}",
        "median age of these features at a request": f"{number_text(features['evaluation']['age_days_median'], 1)} days",
    }


def _facts(log: Row) -> dict[str, str]:
    """Return facts about the log by name."""
    if not log:
        return {}
    return {
        "interactions before the test period": f"{log['interactions']:,}",
        "items": f"{log['items']:,}",
        "interactions per item": number_text(log["per_item"], 1),
        "requests without a history": f"{log['no_history']:.0%}",
        "targets without earlier interactions": f"{log['unknown_targets']:.0%}",
        "targets with which the user had interacted before": f"{log['had_before']:.0%}",
        f"targets among the {log['head']:,} most popular items": f"{log['head_targets']:.0%}",
    }
