"""How much CPU time do the pair fields ``collaborative`` and ``text_match`` need for the candidates of one request?

Pair fields are inputs of the ranker that compare a candidate with the user's history. Both are fitted to the first 80 %
of a log. Requests are then made one hour after the end of the log, by random users, with 1,000 random candidates each.
Only the computation of the fields is timed, on one core.

Rows: one per log (``data``), ``embedder`` of the texts, and ``fields`` (each alone, and ``both``). ``cpu_ms_median``
and ``cpu_ms_least`` are the median and the shortest CPU time of a request in milliseconds, over 198 requests (45 in a
quick run); those that fill caches, the first tenth of all, are left out. ``items`` is the number of items in the log.
The check is that the median of both fields is at most 2 ms.

Without ``--data``: the world ``shop``, and amazon-office if TAIJI_TEST_DATA contains it. Without ``--embedder``:
WordLlama, and MiniLM if it is installed.

    python -m benchmarks.pair_field_speed [--data NAME_OR_PATH]... [--embedder NAME]... [--quick]
        [--json benchmarks/results/pair_field_speed.json]
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.harness import Result, run
from benchmarks.uplift import arguments
from taiji.data.dataset import Dataset
from taiji.data.field_rows import Rows
from taiji.data.sources import load_source
from taiji.models.ranking.pair_fields import CollaborativeMatch, PastField, TextMatch

CANDIDATES = 1000
BAR_MS = 2.0
"""Largest allowed median CPU time of both fields together, in milliseconds."""


def cpu_ms(fields: list[PastField], requests: list[Rows]) -> list[float]:
    """Return the CPU time of each request for all fields together, in milliseconds, without the first tenth of the
    requests."""
    taken = []
    for rows in requests:
        start = time.process_time()
        for field in fields:
            field.matrix(rows)
        taken.append((time.process_time() - start) * 1e3)
    return taken[len(taken) // 10 :]  # the first ones fill caches


def requests_for(dataset: Dataset, count: int) -> list[Rows]:
    """Return ``count`` requests of random users with random candidates, one hour after the end of the log."""
    rng = np.random.default_rng(0)
    now = int(dataset.history.times.max()) + 3_600_000_000
    made = []
    for user in rng.integers(0, dataset.n_users, count):
        items = rng.integers(0, dataset.n_items, CANDIDATES)
        made.append(Rows(dataset, pl.DataFrame({"user": np.full(CANDIDATES, user), "item": items, "time": now})))
    return made


def measure(quick: bool, logs: list[str], embedders: list[str]) -> Result:
    """Time the fields on every log with every embedder."""
    result = Result()
    torch.set_num_threads(1)
    for name in logs[:1] if quick else logs:
        dataset = Dataset.from_tables(load_source(name))
        times = dataset.history.times
        until = int(np.quantile(times, 0.8))
        rows = dataset.events.filter(pl.col("time") < until).select("user", "item", "time")
        requests = requests_for(dataset, 50 if quick else 220)
        for embedder in embedders[:1] if quick else embedders:
            fields: dict[str, PastField] = {
                "collaborative": CollaborativeMatch(),
                "text_match": TextMatch(embedder=embedder),
            }
            for field in fields.values():
                field.fit(dataset, rows, until)
            cases = {**{label: [field] for label, field in fields.items()}, "both": list(fields.values())}
            for label, chosen in cases.items():
                taken = cpu_ms(chosen, requests)
                result.rows.append(
                    {
                        "data": Path(name).name,
                        "items": dataset.n_items,
                        "embedder": embedder,
                        "fields": label,
                        "cpu_ms_median": float(np.median(taken)),
                        "cpu_ms_least": float(np.min(taken)),
                    }
                )
            result.at_most(
                f"{Path(name).name}, {embedder}: median milliseconds of both fields", float(np.median(taken)), BAR_MS
            )
    return result


def main() -> None:
    """Run from the command line."""
    logs, embedders, _, rest = arguments(sys.argv[1:])
    if "--data" not in sys.argv:
        logs = [name for name in logs if name == "world:shop" or Path(name).name == "amazon-office"]
    run(partial(measure, logs=logs, embedders=embedders), rest)


if __name__ == "__main__":
    main()
