"""Does the memory of training from Parquet files depend on the number of rows?

The benchmark writes random exposures of a synthetic shop to Parquet, which is not timed. It then trains the built-in
ranker for one pass over a tenth of the rows and for one pass over all rows, each in a process of its own. The full run
has 10 million rows, the quick run 200,000.

Rows: one per pass, with its number of ``rows``, ``rows_per_second``, and the peak resident memory of the process before
training (``MiB_before``) and at its end (``MiB_peak``). The check is that the peak with all rows is at most 1.3 times
the peak with a tenth of them. The full run trains for three to four minutes on one core.

    python -m benchmarks.ranking_stream [--quick] [--json benchmarks/results/ranking_stream.json]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables

USERS, ITEMS = 20_000, 20_000
GROWTH = 1.3
"""Largest allowed ratio of the peak memory with all rows to that with a tenth of them."""


def shop(events: int, users: int = USERS, items: int = ITEMS) -> Dataset:
    """Return a dataset of random events, few compared with the exposures that are trained on."""
    return Dataset.from_tables(shop_tables(events, users, items))


def shop_tables(events: int, users: int = USERS, items: int = ITEMS) -> Tables:
    """Return the tables of random events of a shop."""
    random = np.random.default_rng(0)
    kinds = [f"kind {c}" for c in random.integers(0, 50, items)]
    times = pl.Series(np.sort(random.integers(0, 10**13, events))).cast(pl.Datetime("us"))
    return Tables(
        pl.DataFrame(
            {
                "item_id": range(items),
                "title": kinds,
                "category_l1": kinds,
                "category_l2": kinds,
                "category_l3": kinds,
            }
        ),
        pl.DataFrame({"user_id": range(users)}),
        pl.DataFrame(
            {
                "user_id": random.integers(0, users, events),
                "item_id": random.integers(0, items, events),
                "timestamp": times,
                "click": np.ones(events, np.int8),
            }
        ),
    )


def write(folder: Path, rows: int, part: int = 500_000) -> list[Path]:
    """Write exposures to files of at most ``part`` rows, and return their paths."""
    files = []
    for number, start in enumerate(range(0, rows, part)):
        random, size = np.random.default_rng([1, number]), min(part, rows - start)
        item = random.integers(0, ITEMS, size)
        click = (random.random(size) < 0.1 + 0.3 * (item % 3 == 0)).astype(np.int8)
        frame = pl.DataFrame(
            {
                "user": random.integers(0, USERS, size),
                "item": item,
                "time": 10**13 + random.integers(0, 10**12, size),
                "click": click,
            }
        )
        files.append(folder / f"part-{number:03d}.parquet")
        frame.with_columns(pl.col("click").alias("conversion")).write_parquet(files[-1])
    return files


def child(folder: str, files: list[str]) -> None:
    """Train one pass over the files. Print the rows per second and the peak memory in MiB, before training and at its
    end."""
    import resource

    from taiji.models.ranking.settings import RankerSettings
    from taiji.models.ranking.stream import train_streamed

    dataset = Dataset.load(folder)
    rows = sum(pl.scan_parquet(f).select(pl.len()).collect().item() for f in files)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
    train_streamed(dataset, files, RankerSettings(epochs=1, min_steps=1, batch=4096), chunk=65_536)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "rows": rows,
                "rows_per_second": rows / (time.perf_counter() - start),
                "MiB_before": before,
                "MiB_peak": peak,
            }
        )
    )


def measure(quick: bool) -> Result:
    """Train on a tenth of the rows, then on all of them."""
    result = Result()
    rows = 200_000 if quick else 10_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop(20_000 if quick else 200_000).save(folder / "data")
        files = write(folder, rows, part=max(rows // 20, 1))
        for part in (files[: len(files) // 10], files):
            command = [
                sys.executable,
                "-m",
                "benchmarks.ranking_stream",
                "--child",
                str(folder / "data"),
                *map(str, part),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result.rows.append(json.loads(done.stdout.splitlines()[-1]))
    small, large = (row["MiB_peak"] for row in result.rows)
    result.at_most("peak memory with all rows over that with a tenth of them", large / small, GROWTH)
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        run(measure)
