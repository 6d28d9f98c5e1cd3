"""Does the cost model of ``taiji plan`` predict how long a run takes, from two smaller runs?

The seconds of each stage, as a function of its amount of work, are fitted as a line to two finished runs of different
size. The lines predict the time of a third, larger run, which is also measured.

The full run uses the demo's configuration with the packaged data and model, with a quarter, a half and all of its
prompts. It measures elapsed time, and takes half an hour on two cores. ``PLAN_RUNS=runs/A,runs/B,runs/C`` uses three
finished runs instead, of which the last is predicted. The quick run uses a small shop in three sizes and a tiny random
model. It measures CPU time, so that other work on the machine does not matter.

Rows: one per stage, and ``all`` for their sum, with the predicted seconds (``foretold s``), the measured seconds, and
their ratio. The check is that the predicted sum differs from the measured one by at most 25 %.

    [PLAN_RUNS=runs/A,runs/B,runs/C] python -m benchmarks.plan [--quick] [--json benchmarks/results/plan.json]
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.tiny import configuration, write_model, write_shop

from benchmarks.harness import Result, run
from taiji.config import Config, load_config
from taiji.pipeline import engine
from taiji.pipeline.engine import Run
from taiji.pipeline.recipes import ENHANCE
from taiji.scale.plan import plan
from taiji.scale.rates import Measured, measured

PROMPTS = ("rationale_prompts", "calibration_prompts", "alignment_prompts", "test_prompts", "feature_users")


def executed(folder: Path, config: Config) -> Measured:
    """Execute all stages of `taiji run` in a folder, and return their measurements."""
    Run(folder, config, ENHANCE, lambda text: None).execute()
    return measured(folder)


def demo(folder: Path, share: float) -> Measured:
    """Run and measure the demo with a share of its prompts."""
    sizes = load_config(preset="demo").size
    overrides = [f"size.{name}={max(4, round(getattr(sizes, name) * share))}" for name in PROMPTS]
    return executed(folder / f"demo-{share}", load_config(preset="demo", overrides=overrides))


def shop(folder: Path, scale: float) -> Measured:
    """Run and measure a small shop with a tiny model. Users, events and prompts are scaled by ``scale``."""
    place = folder / f"shop-{scale}"
    values: dict[str, Any] = configuration(
        write_shop(place / "data", users=round(40 * scale), events=round(4000 * scale)), folder / "tiny"
    )
    sizes = {
        "rationale_prompts": 8,
        "calibration_prompts": 4,
        "alignment_prompts": 6,
        "test_prompts": 10,
        "feature_users": 12,
    }
    values["size"] = {name: round(number * scale) for name, number in sizes.items()} | {"chunk": 8}
    return executed(place / "run", Config.model_validate(values))


def measure(quick: bool) -> Result:
    """Predict the last run from the two before it."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="taiji-plan-") as name:
        folder = Path(name)
        if quick:
            write_model(folder / "tiny")
            shop(folder, 0.5)  # the first run of a process also loads libraries
            with mock.patch.object(engine, "time", SimpleNamespace(monotonic=time.process_time)):
                runs = [shop(folder, scale) for scale in (1, 2, 4)]
        elif os.environ.get("PLAN_RUNS"):
            runs = [measured(Path(run)) for run in os.environ["PLAN_RUNS"].split(",")]
        else:
            demo(
                folder / "warm", 0.1
            )  # the first run of a process also loads libraries and converts the packaged model
            runs = [demo(folder, share) for share in (0.25, 0.5, 1.0)]
    held_back = runs[-1]
    foretold = plan(held_back.config, held_back.log.users, runs[:-1])
    for cost in foretold.stages:
        result.rows.append(
            {
                "stage": cost.stage,
                "foretold s": cost.seconds,
                "measured s": held_back.seconds[cost.stage],
                "ratio": cost.seconds / max(held_back.seconds[cost.stage], 1e-3),
            }
        )
    total = sum(held_back.seconds.values())
    result.rows.append(
        {"stage": "all", "foretold s": foretold.seconds, "measured s": total, "ratio": foretold.seconds / total}
    )
    result.at_most(
        "relative difference of the predicted time from the measured one", abs(foretold.seconds / total - 1), 0.25
    )
    return result


if __name__ == "__main__":
    run(measure)
