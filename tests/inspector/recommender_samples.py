"""A recommender's run with traces, written by hand: what stages of ``taiji recommend`` leave, without fitting
anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tests.inspector.samples import write_run

from taiji.core.artifacts import write_json, write_parquet
from taiji.core.manifests import write_manifest

STAGES = ("retriever-popular", "retriever-together", "retriever-sasrec", "candidate_ranker")
LEFT = ("below the best 10 of rank", "not among the merged candidates")


def pair(against: str, low: float, high: float) -> dict[str, Any]:
    return {"against": against, "value": (low + high) / 2, "low": low, "high": high}


def sample_recommendation(*, world: bool = True) -> dict[str, Any]:
    """Contents of a ``recommendation.json``."""

    def row(arm: str, metric: str, value: float, **more: Any) -> dict[str, Any]:
        return {"arm": arm, "metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 30, **more}

    gap = pair("popular", -0.2, 0.1)
    sasrec = {"component": "sasrec", "metric": "recall@50", "value": 0.2, "low": 0.1, "high": 0.3, "beats": False}
    value = {"value": 0.2, "low": 0.1, "high": 0.3, "n": 30}
    arm = {"arm": "all components", "matched": 40, "effective_rows": 39.0, "mean_weight": 1.02}
    off = {"requests": 30, "exposures": 300, "logged": value, "reward": "clicks per item shown"}
    off["arms"] = [{**arm, "ips": value, "snips": value, "gain": value}]
    few = {"value": 0.5, "low": None, "high": None, "n": 3, "reason": "too few users (3; at least 10 are needed)"}
    return {
        "data": "shop", "requests": 30, "targets": 60, "new_items_only": True, "length": 10, "level": 0.9,
        "retrievers": ["popular", "together", "sasrec"],
        "retrieval": [row("popular", "recall@50", 0.3), row("sasrec", "recall@50", 0.2, difference=gap)],
        "slices": [{"slice": "no history", "requests": 3, "arm": "popular", "metric": "recall@50", **few}],
        "lists": [
            row("all components", "ndcg@10", 0.4),
            row("without sasrec", "ndcg@10", 0.2, difference=pair("all components", -0.3, -0.1)),
            *([row("all components", "true_reward@10", 5.0), row("all components", "true_clicks@10", 2.0)] if world else []),
        ],
        "components": [{**sasrec, "comparisons": [{**gap, "verdict": "open"}], "reasons": ["Against popular <few>."]}],
        "log": {"interactions": 100, "items": 50, "per_item": 2.0, "no_history": 0.1, "unknown_targets": 0.2,
                "had_before": 0.3, "head": 7, "head_targets": 0.4, "limits": ["There are 2.0 past interactions."]},
        "candidates": {"retrieve: popular": 20.0, "merge": 30.5, "list": 10.0},
        "off_policy": off if world else None,
        "milliseconds": {"retrieve: popular": 0.5, "merge": 0.25, "rank": 5.0},
    }  # fmt: skip


def sample_loop() -> dict[str, Any]:
    """Contents of a ``closed_loop.json``."""
    rows = [{"policy": "all components", "metric": "reward", "value": 5.0, "low": 4.0, "high": 6.0, "n": 30}]
    worse = {**rows[0], "policy": "popularity alone", "difference": pair("all components", -2.0, -1.0)}
    return {"first_day": 6, "days": 2, "users": 30, "metrics": [*rows, worse]}


def write_recommender(folder: Path, requests: int = 3, candidates: int = 120) -> Path:
    """A run of ``taiji recommend`` alone; in request 0 the user took items 0 and 1 (found) and 199 (not found)
    later."""
    write_run(folder)
    for path in folder.iterdir():
        if path.name not in ("config.json", "data"):
            path.unlink() if path.is_file() else [*map(Path.unlink, path.glob("**/*.*"))] and path.rmdir()
    random = np.random.default_rng(0)
    rows = []
    for request in range(requests):
        for item in range(candidates):
            place = item + 1 if item < 10 else None
            rows.append(
                {"request": request, "item": item, "rank in popular": item + 1 if item % 2 == 0 else None,
                 "rank in together": None if item % 2 == 0 else item, "rank in sasrec": 5 if item == 7 else None,
                 "merged": 1 / (item + 1), "rank: merged": 1 / (item + 1), "rank: click": 0.5 - item / 500,
                 "rank score": 2 - item / 100, "place": place, "left_out": None if place else LEFT[item % 2],
                 "target": item in (0, 1), "true click": float(random.random())}
            )  # fmt: skip
    write_parquet(folder / "recommendation" / "traces.parquet", pl.DataFrame(rows))
    time = int(pl.read_parquet(folder / "data" / "dataset" / "events.parquet")["time"].max()) - 1_000_000  # type: ignore[arg-type]
    asked = {"request": range(requests), "user": range(requests), "time": time, "targets": [[0, 1, 199]] * requests}
    write_parquet(
        folder / "recommendation" / "requests.parquet", pl.DataFrame(asked, schema_overrides={"time": pl.Int64})
    )
    write_json(folder / "recommendation" / "recommendation.json", sample_recommendation())
    write_json(folder / "closed_loop" / "closed_loop.json", sample_loop())
    for number, stage in enumerate((*STAGES, "recommendation", "closed_loop")):
        (folder / stage).mkdir(exist_ok=True)
        write_manifest(folder / stage, {"stage": stage, "seconds": 2.0 * number, "finished": "2024-01-01", "facts": {}})
    return folder
