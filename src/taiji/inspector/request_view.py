"""View of the traced requests of a recommender.

It shows the path of every candidate through the steps and, in a simulated world, the true values next to the estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from taiji.inspector.run_view import RunFiles
from taiji.inspector.user import items_of, when

CANDIDATES = 50
"""Number of candidates per page."""
PAST = 8
"""Number of past items to show."""
FOUND = "rank in "
TRUE = "true "
BESIDE = {"click": "click", "ctcvr": "buy", "watch": "watch"}
"""Map from the name of a prediction to the name of its true value."""
ORDERS = {
    "way": "shown first, then by score",
    "merged": "by the merged score",
    "truth": "by true clicks",
}
Row = Mapping[str, Any]


def request_list(run: RunFiles) -> list[dict[str, Any]]:
    """Return the traced requests with user and time.

    Each request also has the number of its targets (items of the user's later interactions), and the numbers of targets
    among the candidates (``found``) and in the list (``shown``).
    """
    dataset, requests, traces = run.dataset, run.requests, run.traces
    if dataset is None or not len(requests):
        return []
    hits = traces.group_by("request").agg(
        pl.len().alias("candidates"),
        pl.col("target").sum().alias("found"),
        (pl.col("target") & pl.col("place").is_not_null()).sum().alias("shown"),
    )
    known = dataset.history.count_before(requests["user"].to_numpy(), requests["time"].to_numpy())
    joined = requests.join(hits, on="request", how="left", maintain_order="left")
    return [
        {
            **row,
            "user_id": str(dataset.users["user_id"][row["user"]]),
            "when": when(row["time"]),
            "past": int(past),
            "targets": len(row["targets"]),
        }
        for row, past in zip(joined.to_dicts(), known)
    ]


def request_view(run: RunFiles, number: int, only: str, order: str, page: int) -> dict[str, Any] | None:
    """Return the trace of one request, or None if the request does not exist.

    Args:
        run: run of a recommender.
        number: index of the request.
        only: filter of the candidates: ``shown``, ``taken`` (targets), ``found: RETRIEVER``, or a reason in the column
            ``left_out``. Any other value selects all candidates.
        order: key of :data:`ORDERS`.
        page: page of candidates, from 1.
    """
    dataset, requests = run.dataset, run.requests
    if dataset is None or not 0 <= number < len(requests):
        return None
    request = requests.row(number, named=True)
    part = run.traces.filter(pl.col("request") == number)
    past, times = dataset.history.before(request["user"], request["time"])
    columns = _columns(part, run.config.recommend.fusion_weights)
    fates = ["shown", *part["left_out"].drop_nulls().unique(maintain_order=True)]
    chosen = _ordered(_only(part, only), order)
    pages = max(1, -(-len(chosen) // CANDIDATES))
    page = min(max(page, 1), pages)
    recent = items_of(run, past[:PAST].tolist())
    return {
        "number": number,
        "count": len(requests),
        "user_id": str(dataset.users["user_id"][request["user"]]),
        "when": when(request["time"]),
        "context": {name: request[name] for name in requests.columns if name in dataset.context},
        "past": len(past),
        "recent": [{**what, "when": when(int(time))} for what, time in zip(recent, times[:PAST].tolist())],
        "columns": columns,
        "funnel": _funnel(part, len(request["targets"])),
        "list": _rows(run, part.filter(pl.col("place").is_not_null()).sort("place"), columns),
        "targets": _targets(run, part, request["targets"]),
        "agreement": _agreement(part),
        "candidates": _rows(run, chosen.slice((page - 1) * CANDIDATES, CANDIDATES), columns),
        "total": len(chosen),
        "page": page,
        "pages": pages,
        "onlys": {
            "": f"all {len(part):,}",
            **{fate: fate for fate in fates},
            "taken": "later interactions",
            **{f"found: {name}": f"found by {name}" for name in columns["found"]},
        },
        "orders": {key: title for key, title in ORDERS.items() if key != "truth" or columns["truth"]},
        "only": only,
        "order": order,
    }


def _columns(part: pl.DataFrame, weights: Mapping[str, float]) -> dict[str, Any]:
    """Return the columns to show.

    These are the retrievers, the predictions with a fusion weight, and the pairs of an estimate and its true value. The
    flags ``truth`` and ``score`` are True if true clicks and scores exist.
    """
    pairs = [
        (of, f"rank: {task}", f"{TRUE}{of}")
        for task, of in BESIDE.items()
        if f"rank: {task}" in part.columns and f"{TRUE}{of}" in part.columns
    ]
    paired = {column for _, column, _ in pairs}
    weighted = [(f"rank: {task}", task) for task in weights if task != "merged"]
    return {
        "found": [name.removeprefix(FOUND) for name in part.columns if name.startswith(FOUND)],
        "predictions": [(c, title) for c, title in weighted if c in part.columns and c not in paired],
        "pairs": pairs,
        "truth": f"{TRUE}click" in part.columns,
        "score": "rank score" in part.columns,
    }


def _only(part: pl.DataFrame, only: str) -> pl.DataFrame:
    column = f"{FOUND}{only.removeprefix('found: ')}"
    if only == "shown":
        return part.filter(pl.col("place").is_not_null())
    if only == "taken":
        return part.filter(pl.col("target"))
    if only.startswith("found: ") and column in part.columns:
        return part.filter(pl.col(column).is_not_null()).sort(column)
    if only and "left_out" in part.columns and (part["left_out"] == only).any():
        return part.filter(pl.col("left_out") == only)
    return part


def _ordered(part: pl.DataFrame, order: str) -> pl.DataFrame:
    if order == "merged" and "merged" in part.columns:
        return part.sort("merged", descending=True, nulls_last=True, maintain_order=True)
    if order == "truth" and f"{TRUE}click" in part.columns:
        return part.sort(f"{TRUE}click", descending=True, nulls_last=True, maintain_order=True)
    score = [name for name in ("rank score", "merged") if name in part.columns]
    return part.sort("place", *score, descending=[False, *[True] * len(score)], nulls_last=True, maintain_order=True)


def _rows(run: RunFiles, part: pl.DataFrame, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return candidates as rows of the tables."""
    rows = part.to_dicts()
    return [
        {
            "what": what,
            "place": row["place"],
            "target": row["target"],
            "left_out": row.get("left_out"),
            "found": [(name, row[f"{FOUND}{name}"]) for name in columns["found"] if row[f"{FOUND}{name}"]],
            "merged": row.get("merged"),
            "predictions": [row[column] for column, _ in columns["predictions"]],
            "pairs": [(row[estimate], row[truth]) for _, estimate, truth in columns["pairs"]],
            "true": row.get(f"{TRUE}click"),
            "score": row.get("rank score"),
        }
        for row, what in zip(rows, items_of(run, part["item"].to_list()))
    ]


def _funnel(part: pl.DataFrame, targets: int) -> list[dict[str, Any]]:
    """Return for each step the number of candidates after it and the number of targets among them.

    In a simulated world, also return the mean true click value of these candidates (``truth``).
    """
    shown = pl.col("place").is_not_null()
    steps: list[tuple[str, pl.Expr]] = [
        (name.removeprefix(FOUND), pl.col(name).is_not_null()) for name in part.columns if name.startswith(FOUND)
    ]
    steps += [
        (title, pl.col(column).is_not_null())
        for column, title in (("merged", "merged"), ("rank score", "ranked"))
        if column in part.columns
    ]
    rows = []
    for title, included in [*steps, ("list", shown)]:
        inside = part.filter(included)
        truth = inside[f"{TRUE}click"].mean() if f"{TRUE}click" in part.columns and len(inside) else None
        rows.append(
            {
                "step": title,
                "candidates": len(inside),
                "targets": int(inside["target"].sum()),
                "of": targets,
                "truth": truth,
            }
        )
    return rows


def _targets(run: RunFiles, part: pl.DataFrame, targets: Sequence[int]) -> list[dict[str, Any]]:
    """Return the targets (items of the user's later interactions), each with its outcome in the request."""
    known = {row["item"]: row for row in part.filter(pl.col("target")).to_dicts()}
    found = []
    for what in items_of(run, list(targets)):
        row = known.get(what["item"])
        if row is None:
            fate = "not found by any retriever"
        elif row["place"] is not None:
            fate = f"shown at position {row['place']}"
        else:
            fate = row.get("left_out") or "left out"
        found.append({"what": what, "fate": fate, "shown": row is not None and row["place"] is not None})
    return sorted(found, key=lambda row: (not row["shown"], row["fate"]))


def _agreement(part: pl.DataFrame) -> list[tuple[str, float]]:
    """Return the rank correlation between each score and the true clicks, over the candidates that have both values."""
    if f"{TRUE}click" not in part.columns:
        return []
    found = []
    for column, title in (("merged", "merge"), ("rank: click", "predicted click"), ("rank score", "score")):
        if column in part.columns:
            both = part.select(column, f"{TRUE}click").drop_nulls()
            if len(both) >= 3:
                ranks = [both[name].rank().to_numpy() for name in both.columns]
                with np.errstate(invalid="ignore"):
                    value = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
                if np.isfinite(value):
                    found.append((title, value))
    return found
