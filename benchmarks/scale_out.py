"""Can stages process logs that are larger than memory, and what do Ray and a second worker bring?

*Memory*: synthetic logs of 1 to 30 million events (100 events per user, 50,000 items) pass through the stages
`examples` and `features`, and through the join of features to the exposures of the ranker period and of the test
period. Each size has its own process. The peak of its resident memory is measured, which includes files mapped into
memory.

*Engines*: a language model answers 640 prompts in one stage over partitions, on the local engine and on Ray with one
and two workers. Each worker has one thread. The three run in turn, three times. Two workers need two free cores.

Rows with ``part`` memory: ``events``, ``exposures joined``, ``feature rows``, ``peak GiB``, ``peak GiB while storing``
the log, ``data GiB`` on disk, and the seconds of each stage. Rows with ``part`` engines: ``stage s``, the seconds of
the stage, and ``start s``, those of starting the cluster, which occurs once per run and is not part of the stage. Of
the last two rows, ``Ray's overhead on one worker`` is the time of Ray with one worker divided by that of the local
engine, minus 1; ``efficiency of two workers`` is the local time divided by twice that of Ray with two workers.

Checks: at most 6 GiB for the largest log, and more joined exposures than a fifth of its events; equal texts from all
engines; and, if the local stage takes a minute or more, an overhead of at most .15 and an efficiency of at least .7.
Quick sizes are too small to test these limits; they show that everything runs and that the texts are equal. The
memory takes ten minutes, and the engines a quarter of an hour. ``TAIJI_SCALE_PART`` (``memory`` or ``engines``) runs
one part. ``benchmarks/results/scale_memory.json`` has the memory, ``benchmarks/results/scale_out.json`` the engines.

    [TAIJI_SCALE_PART=engines] python -m benchmarks.scale_out [--quick] [--json benchmarks/results/scale_out.json]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, run
from taiji.language.tiny import tiny_causal_lm

SIZES = (1_000_000, 3_000_000, 10_000_000, 30_000_000)
QUICK_SIZES = (20_000, 60_000)
LIMIT_GIB, MOST_OVERHEAD = 6.0, 0.15


def child(*arguments: object) -> dict[str, Any]:
    """Run :mod:`benchmarks.scale_child` in a process of its own, and return what it printed as one dict."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_child", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def model(folder: Path, hidden: int, layers: int) -> None:
    """Write a random language model of this width and number of layers."""
    lm, tokenizer = tiny_causal_lm(hidden=hidden, layers=layers)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def memory(result: Result, sizes: tuple[int, ...], feature_users: int) -> None:
    """Add the peak memory and the seconds of the stages, by number of events."""
    for events in sizes:
        with tempfile.TemporaryDirectory(prefix="taiji-scale-") as name:
            folder = Path(name)
            made = child("make", folder / "data" / "dataset", events)
            model(folder / "alignment" / "model", 64, 2)
            found = child("stages", folder, feature_users)
            disk = sum(file.stat().st_size for file in (folder / "data").rglob("*.*") if file.is_file()) / 2**30
        result.rows.append(
            {
                "part": "memory",
                "events": events,
                "exposures joined": found["exposures"],
                "feature rows": found["feature_rows"],
                "peak GiB": found["peak_gib"],
                "peak GiB while storing": made["peak_gib"],
                "data GiB": disk,
                **{f"{stage} s": value for stage, value in found["seconds"].items()},
            }
        )
    rows = [row for row in result.rows if row["part"] == "memory"]
    result.at_most("peak GiB of the largest log", rows[-1]["peak GiB"], LIMIT_GIB)
    result.at_least(
        "largest log: more than a fifth of the events are joined exposures (1: yes)",
        float(rows[-1]["exposures joined"] > 0.2 * sizes[-1]),
        1,
    )


def engines(result: Result, prompts: int, hidden: int, layers: int, repeats: int) -> None:
    """Add the seconds of one stage on each engine, and compare them."""
    if find_spec("ray") is None:
        result.rows.append({"part": "engines", "engine": "Ray is not installed"})
        return
    two = len(os.sched_getaffinity(0)) > 1
    with tempfile.TemporaryDirectory(prefix="taiji-scale-") as name:
        folder = Path(name)
        child("make", folder / "data" / "dataset", 200_000)
        model(folder / "model", hidden, layers)
        config = {
            "size": {"test_prompts": prompts, "chunk": 16},
            "examples": {"per_user": 4, "min_history": 2},
            "generation": {"max_new_tokens": 64, "temperature": 0.7},
            "reasoning": {"prompts": {"history_limit": 10, "token_budget": 1500}},
            "language": {"model": str(folder / "model"), "dtype": "float32"},
        }
        child("examples", folder, json.dumps(config))
        seconds: dict[tuple[str, int], list[float]] = {}
        texts = set()
        for repeat in range(repeats):
            for engine, workers in (("local", 1), ("ray", 1), *([("ray", 2)] if two else [])):
                scratch = folder / f"run-{repeat}-{engine}-{workers}"
                found = child("answers", folder, engine, workers, scratch)
                seconds.setdefault((engine, workers), []).append(found["seconds"])
                texts.add(found["texts"])
                result.rows.append(
                    {
                        "part": "engines",
                        "engine": engine,
                        "workers": workers,
                        "prompts": found["prompts"],
                        "stage s": found["seconds"],
                        "start s": found["start_s"],
                    }
                )
    result.at_most("sets of texts beyond the first (0: all engines wrote the same)", len(texts) - 1, 0)
    local, one = seconds["local", 1], seconds["ray", 1]
    overhead = statistics.median(b / a for a, b in zip(local, one)) - 1
    result.rows.append({"part": "engines", "engine": "Ray's overhead on one worker", "stage s": overhead})
    if statistics.median(local) >= 60:
        result.at_most("Ray's overhead on one worker", overhead, MOST_OVERHEAD)
    if two:
        efficiency = statistics.median(a / (2 * b) for a, b in zip(local, seconds["ray", 2]))
        result.rows.append({"part": "engines", "engine": "efficiency of two workers", "stage s": efficiency})
        if statistics.median(local) >= 60:
            result.at_least("efficiency of two workers", efficiency, 0.7)


def measure(quick: bool) -> Result:
    """Measure the chosen parts."""
    result = Result()
    if os.environ.get("TAIJI_SCALE_PART", "memory") == "memory":
        memory(result, QUICK_SIZES if quick else SIZES, 20 if quick else 2000)
    if os.environ.get("TAIJI_SCALE_PART", "engines") == "engines":
        engines(result, *((24, 64, 2, 1) if quick else (640, 256, 6, 3)))
    return result


if __name__ == "__main__":
    run(measure)
