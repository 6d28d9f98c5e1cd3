"""The uplift ladder: counts, collaborative fields, text match, and the oracle of intents, each rung against the one before it.

Protocol: first (user, item) events; four candidates per item taken, of what others took in the same window; training on
the candidates between 30 % and 80 % of the log, test on the rest; item knowledge is refreshed four times in each period;
events of one instant never see each other. Our ranker and LightGBM side by side, two configurations each at every rung,
chosen on the latest part of training. Text must pay: ``gain`` is with it in any case, ``kept_gain`` as the product's ranker takes
it, left out of the seeds (``kept`` is the share of the others) in which it does not lower the loss on the latest part of training;
the checks are about the latter. Intervals: paired bootstrap over users and seeds. Controls: permuted texts, random vectors of the
same geometry, titles of noise words, another user's history.

    python -m benchmarks.uplift [--data NAME_OR_PATH]... [--embedder minilm]... [--quick] [--json FILE]

Without ``--data``: the world ``shop`` and its twin without telling titles, completejourney, and amazon-office and ml-latest-small where TAIJI_TEST_DATA names the public data
sets. UPLIFT_SEEDS (2), UPLIFT_ROWS (150000), UPLIFT_MODELS ("LightGBM taiji") change the budget.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import Result, run
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source
from taiji.experiments.ladder import climb
from taiji.experiments.uplift_rungs import ladder
from taiji.experiments.uplift_trial import Trial, log_facts
from taiji.language.item_vectors import chosen_embedder

BARS = {"wordllama": 0.010, "minilm": 0.015}
"""Gain of text match over collaborative fields on amazon-office."""
LOSS = -0.002
"""What text may cost where it has nothing to say."""


def measure(quick: bool, logs: list[str], embedders: list[str]) -> Result:
    """All logs and embedders."""
    result = Result()
    seeds, rows = int(os.environ.get("UPLIFT_SEEDS", "2")), int(os.environ.get("UPLIFT_ROWS", "150000"))
    models = os.environ.get("UPLIFT_MODELS", "LightGBM taiji").split()
    if quick:
        logs, embedders, seeds, rows, models = ["world:shop"], embedders[:1], 1, 8_000, models[:1]
    for name in logs:
        try:
            trial = Trial.of(Dataset.from_tables(load_source(name)), most=rows)
        except FileNotFoundError:
            print(f"{name}: left out, it is not there")
            continue
        label = Path(name).name
        result.rows.append({"data": label, **log_facts(trial)})
        for embedder in embedders:
            rungs = ladder(embedder)
            for row in climb(trial, rungs, models, seeds=seeds, resamples=100 if quick else 500):
                result.rows.append({"data": label, "embedder": embedder, **row})
                result.so_far()
                check(result, label, embedder, row)
    return result


def check(result: Result, data: str, embedder: str, row: dict[str, object]) -> None:
    """Compare a row with the bars written down before."""
    gain, low = row.get("kept_gain", row.get("gain")), row.get("kept_low", row.get("low"))
    if row["group"] != "all" or not isinstance(gain, float):
        return
    name = f"{data}, {row['model']}, {row['rung']}"
    if "control, permuted" in str(row["rung"]) and isinstance(low, float):
        result.at_most(f"{name}: lower end of a control's gain", low, 0.0)
        result.at_least(f"{name}: what text that says nothing costs", gain, LOSS)
    elif row["rung"] == f"2 text match, {embedder}":
        result.at_least(name, gain, BARS.get(embedder, 0.0) if data == "amazon-office" else LOSS)
        if data == "amazon-office" and isinstance(low, float):
            result.at_least(f"{name}: lower end", low, 0.0)


def arguments(argv: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return logs, embedders, and what is left for the harness."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--embedder", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    folder = os.environ.get("TAIJI_TEST_DATA")
    public = [str(Path(folder) / name) for name in ("amazon-office", "ml-latest-small")] if folder else []
    logs = known.data or [
        "world:shop",
        "world:shop,-shelf.text",
        *[path for path in public if Path(path).is_dir()],
        "completejourney",
    ]
    found = known.embedder or [name for name in ("wordllama", "minilm") if chosen_embedder("auto") in (name, "minilm")]
    return logs, found, rest


def main() -> None:
    """Run from the command line."""
    logs, embedders, rest = arguments(sys.argv[1:])
    action = partial(measure, logs=logs, embedders=embedders)
    action.__module__ = __name__  # type: ignore[attr-defined]
    run(action, rest)


if __name__ == "__main__":
    main()
