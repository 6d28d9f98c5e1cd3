"""Writes a run directory of any size with the columns that the stages write, without training anything.

Some texts are hostile: they must come out as text.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tests.reporting.samples import sample_metrics

from taiji.config import Config
from taiji.core.artifacts import write_json, write_parquet, write_text
from taiji.core.manifests import write_manifest
from taiji.data import Dataset, Tables
from taiji.data.reading_report import Finding, LabelReading, ReadingReport
from taiji.features.feature_table import SCHEMA
from taiji.pipeline.recipes import STAGE_NAMES

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 400


def write_run(
    folder: Path,
    users: int = 60,
    per_user: int = 30,
    items: int = 200,
    steps: int = 25,
    seed: int = 0,
    called: Callable[[int], str] = "user-{}".format,
) -> Path:
    """A finished run of ``users`` users; one user in five has prompts, everybody has two feature rows.

    ``called`` gives a user's id.
    """
    rng = np.random.default_rng(seed)
    dataset = _dataset([called(user) for user in range(users)], per_user, items, rng)
    config = Config().model_dump(mode="json")
    write_json(folder / "config.json", config)
    finding = Finding(check="rows left out", found="log.csv: 2 rows <without> a user_id; left out, of 9 rows.")
    labels = (LabelReading(name="click", rows=9, known=9, mean=0.5),)
    read = ReadingReport(labels=labels, findings=(finding,))
    replace(dataset, reading=read).save(folder / "data" / "dataset")
    start, end = int(dataset.events["time"][0]), int(dataset.events["time"][-1]) + 1  # type: ignore[call-overload]
    bounds = [start + (end - start) * part // 4 for part in range(5)]
    write_json(folder / "examples" / "split.json", {"bounds": bounds})

    chosen = np.arange(0, users, 5)
    roles = np.array(["rationale", "calibration", "alignment", "test"])[np.arange(len(chosen)) % 4]
    as_of = np.where(roles == "test", bounds[3], bounds[1]) + 1_000_000
    examples = pl.DataFrame(
        {"user": chosen, "as_of": as_of, "target": rng.integers(0, items, len(chosen)), "role": roles}
    ).with_columns(pl.col("user", "target").cast(pl.UInt32), user_id=dataset.users["user_id"].gather(chosen))
    examples = examples.with_columns(example=pl.format("{}@{}", "user_id", "as_of"))
    write_parquet(folder / "examples" / "examples.parquet", examples)
    asked = {
        role: examples.filter(pl.col("role") == role) for role in ("rationale", "calibration", "alignment", "test")
    }
    _taught(folder, pl.concat([asked["calibration"], asked["rationale"]]))
    _aligned(folder, asked["alignment"], steps, rng)
    _answered(folder, asked["test"], items, rng)
    _features(folder, dataset, bounds, rng)
    _ranked(folder, dataset, bounds, rng)

    figures = sample_metrics()
    figures["alignment"]["steps"] = [_step(step, steps) for step in range(1, steps + 1)]
    write_json(folder / "report" / "metrics.json", figures)
    write_text(folder / "report" / "report.html", "<!doctype html><title>report</title><h1>The report</h1>")
    write_text(
        folder / "report" / "model_card.md",
        f"# Model card\n\n| what | value |\n|---|---|\n| architecture | {HOSTILE} |\n| parameters stored | {'many words ' * 30}|\n",
    )
    for name in ("metrics.json", "report.html", "model_card.md"):
        shutil.copy(folder / "report" / name, folder)
    for number, name in enumerate(STAGE_NAMES):
        (folder / name).mkdir(exist_ok=True)
        write_manifest(
            folder / name,
            {"stage": name, "seconds": 1.5 * number, "finished": "2024-01-01", "facts": {"rows": number}},
        )
    return folder


def _dataset(ids: list[str], per_user: int, items: int, rng: np.random.Generator) -> Dataset:
    users = len(ids)
    total = users * per_user
    who, what = np.repeat(np.arange(users), per_user), rng.integers(0, items, total)
    seconds = np.sort(rng.integers(0, DAYS * 86400, total))[rng.permutation(total)]
    click = (rng.random(total) < 0.6).astype(np.int8)
    shelf = np.arange(items) % 7
    tables = Tables(
        items=pl.DataFrame(
            {
                "item_id": [f"S{i}" for i in range(items)],
                "title": [HOSTILE if i == 3 else f"Thing {i} of a reasonable length, 12 oz" for i in range(items)],
                "category_l1": [f"Aisle {s}" for s in shelf],
                "category_l2": [f"Shelf {s}-{i % 3}" for i, s in enumerate(shelf)],
                "category_l3": [None] * items,
                "price": np.round(rng.uniform(1, 9, items), 2),
            },
            schema_overrides={"category_l3": pl.String},
        ),
        users=pl.DataFrame(
            {
                "user_id": ids,
                "age": [f"{20 + 5 * (u % 10)}-{24 + 5 * (u % 10)}" for u in range(users)],
                "note": [HOSTILE if u == 0 else f"lives in town {u % 97}" for u in range(users)],
            }
        ),
        events=pl.DataFrame(
            {
                "user_id": pl.Series(ids).gather(who),
                "item_id": pl.Series([f"S{i}" for i in range(items)]).gather(what),
                "timestamp": pl.Series(seconds).cast(pl.Int64) * 1_000_000 + int(START.timestamp() * 1e6),
                "exposed": rng.random(total) < 0.8,
                "click": click,
                "conversion": (click.astype(bool) & (rng.random(total) < 0.3)).astype(np.int8),
                "price": np.round(rng.uniform(1, 9, total), 2),
            }
        ).with_columns(
            pl.col("timestamp").cast(pl.Datetime("us")),
            matured_at=pl.col("timestamp").cast(pl.Datetime("us")) + timedelta(days=1),
        ),
        name="sample shop",
        domain="shop",
    )
    return Dataset.from_tables(tables)


def completion(number: int) -> str:
    """Well-formed, malformed and hostile ones in turn."""
    return (
        f"This shopper often buys things like number {number}.</think><answer>Item title: Thing {number}; Category L1: Aisle 2; L2: Shelf 2-1</answer>",
        f"This shopper {HOSTILE} and never ends",
        f"Because of {HOSTILE}.</think><answer>Item title: {HOSTILE} {number}; Category L1: Aisle 1</answer>",
    )[number % 3]


def _taught(folder: Path, examples: pl.DataFrame) -> None:
    rows = [
        {
            "example": example,
            "sample": sample,
            "rationale": f"Rationale {sample} {HOSTILE if sample else 'plain'}",
            "teacher": "local:tiny",
        }
        for example in examples["example"]
        for sample in range(2)
    ]
    write_parquet(
        folder / "rationales" / "rationales.parquet", pl.DataFrame(rows).with_columns(pl.col("sample").cast(pl.UInt8))
    )
    judged = set(examples.filter(pl.col("role") == "rationale")["example"])
    told: list[dict[str, Any]] = [
        {
            **row,
            "ppl": 4.0 + row["sample"],
            "ppl_none": 5.0,
            "ppl_masked": 4.5,
            "leak_share": None,
            "named": ["oat"] if row["sample"] else [],
            "levels_named": [],
            "forbidden": [],
            "kept": row["sample"] == 0,
            "reasons": [] if row["sample"] == 0 else ["perplexity not below the threshold (5.00, threshold 4.50)"],
        }
        for row in rows
        if row["example"] in judged
    ]
    write_parquet(
        folder / "selection" / "verdicts.parquet",
        pl.DataFrame(
            told,
            schema_overrides={
                "named": pl.List(pl.String),
                "levels_named": pl.List(pl.String),
                "forbidden": pl.List(pl.String),
                "reasons": pl.List(pl.String),
                "leak_share": pl.Float64,
            },
        ),
    )
    write_parquet(
        folder / "selection" / "prompts.parquet",
        examples.select("example", kept=pl.lit(3, pl.UInt32), dropped=pl.lit(2, pl.UInt32)),
    )


def _aligned(folder: Path, examples: pl.DataFrame, steps: int, rng: np.random.Generator) -> None:
    rows = []
    for step in range(1, steps + 1):
        example = examples["example"][step % len(examples)]
        for number in range(4):
            rewards = {"semantic": float(rng.random()), "preference": None if number == 3 else float(rng.random())}
            rows.append(
                {
                    "step": step,
                    "example": example,
                    "completion": completion(number),
                    "rewards": rewards,
                    "item": None if number == 1 else number,
                    "similarity": 0.4,
                }
            )
    write_parquet(
        folder / "alignment" / "rollouts.parquet",
        pl.DataFrame(rows).with_columns(pl.col("step", "item").cast(pl.UInt32)),
    )
    write_parquet(
        folder / "alignment" / "prompts.parquet",
        examples.select("example", kept=pl.lit(3, pl.UInt32), dropped=pl.lit(0, pl.UInt32)),
    )


def _answered(folder: Path, examples: pl.DataFrame, items: int, rng: np.random.Generator) -> None:
    landed = []
    for place, model in enumerate(("base", "sft", "aligned")):
        texts = [completion(number + place) for number in range(len(examples))]
        write_parquet(
            folder / "answers" / f"{model}.parquet",
            examples.select(
                "example", "user", "as_of", kept=pl.lit(4, pl.UInt32), dropped=pl.lit(1, pl.UInt32)
            ).with_columns(completion=pl.Series(texts)),
        )
        landed += [
            {
                "example": example,
                "model": model,
                "place": near,
                "item": int(rng.integers(items)),
                "similarity": 0.9 - near / 10,
                "ctcvr": 0.1,
                "target_place": 7,
            }
            for example, text in zip(examples["example"], texts)
            if "</answer>" in text
            for near in range(1, 6)
        ]
    write_parquet(
        folder / "report" / "grounding.parquet", pl.DataFrame(landed).with_columns(pl.col("item").cast(pl.UInt32))
    )


def _features(folder: Path, dataset: Dataset, bounds: list[int], rng: np.random.Generator) -> None:
    n = dataset.n_users
    user, as_of = np.repeat(np.arange(n), 2), np.tile([bounds[2], bounds[3]], n)
    rows = pl.DataFrame({"user": user, "as_of": as_of}).with_columns(
        pl.col("user").cast(pl.UInt32), example=pl.format("{}@{}", "user", "as_of")
    )
    texts = pl.Series([completion(number) for number in range(300)])
    write_parquet(
        folder / "features" / "completions.parquet",
        rows.with_columns(
            kept=pl.lit(5, pl.UInt32), dropped=pl.lit(0, pl.UInt32), completion=texts.gather(np.arange(2 * n) % 300)
        ),
    )
    for arm in ("taiji", "history_mean"):
        lent = pl.Series(rng.integers(0, dataset.n_items, (2 * n, 12))).cast(pl.List(pl.UInt32)) if n else None
        table = rows.select(
            "user",
            "as_of",
            available_at="as_of",
            ids=pl.Series(rng.integers(0, 64, (2 * n, 8))).cast(pl.List(pl.UInt16)),
            neighbour=pl.Series((user + 1) % n).cast(pl.UInt32),
            similarity=pl.lit(0.8, pl.Float32),
            neighbour_items=lent,
            vector=pl.lit(None, pl.List(pl.Float32)),
            model_version=pl.lit("m1"),
            quantizer_version=pl.lit("q1"),
        )
        assert dict(table.schema) == SCHEMA
        write_parquet(folder / "features" / f"{arm}.parquet", table)


def _ranked(folder: Path, dataset: Dataset, bounds: list[int], rng: np.random.Generator) -> None:
    shown = dataset.events.filter(pl.col("exposed") & (pl.col("time") >= bounds[3])).select(
        "event", "user", "item", "time", "click", "conversion", "price"
    )
    write_parquet(folder / "ranking" / "exposures.parquet", shown)
    for arm in ("none", "history_mean", "taiji"):
        told = rng.random(len(shown))
        write_parquet(
            folder / "ranking" / f"predictions-{arm}.parquet",
            shown.select("event", click=pl.Series(told), conversion=pl.lit(0.5), ctcvr=pl.Series(told / 2)),
        )


def _step(step: int, steps: int) -> dict[str, Any]:
    share = step / steps
    return {
        "step": step,
        "rewards": {"semantic": 0.2 + 0.3 * share, "preference": 0.4 - 0.1 * share},
        "rewards_std": {"semantic": 0.1, "preference": 0.2},
        "weights": {"semantic": 0.5 + 0.2 * share, "preference": 0.5 - 0.2 * share},
        "indicator": {"semantic": None if step < 3 else share, "preference": None if step < 3 else 1 - share},
        "loss": 0.1,
        "kl": 0.01,
        "entropy": 1.0,
        "completion_length": 60.0,
        "delta_log_w": 0.02,
    }
