"""What a run says before its first stage: what will run, and roughly how long, going by measured stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from taiji.config import Config
from taiji.core.manifests import CHECKSUM, read_manifest, write_manifest
from taiji.pipeline import amounts
from taiji.pipeline.amounts import Amount, Log
from taiji.pipeline.engine import Context, Run
from taiji.pipeline.stage import Stage
from taiji.scale.forecast import duration, forecast


class Reading(Stage):
    name, summary = "data", "Read."

    def run(self, context: Context) -> dict[str, Any]:
        (context.folder / "out.txt").write_text("data")
        return {"users": 50, "items": 9, "events": 1000}

    def cost(self, config: Config, log: Log) -> Amount:
        return Amount(log.events)


class Asking(Stage):
    name, summary = "answers", "Ask."
    needs, settings = ("data",), ("size",)

    def run(self, context: Context) -> dict[str, Any]:
        (context.folder / "out.txt").write_text(str(context.config.size.test_prompts))
        return {}

    def cost(self, config: Config, log: Log) -> Amount:
        rows = amounts.tested_prompts(config, log)
        return Amount(rows, written=rows * log.answer_tokens, language=True)


class Telling(Stage):
    name, summary = "report", "Tell."
    needs = ("answers",)

    def run(self, context: Context) -> dict[str, Any]:
        (context.folder / "out.txt").write_text("report")
        return {}


STAGES = (Reading(), Asking(), Telling())


def opened(folder: Path, stages: Sequence[Stage] = STAGES, **changes: Any) -> Run:
    config = Config.model_validate({"size": {"test_prompts": 20}, **changes})
    return Run(folder, config, stages, say=lambda text: None)


def measure(folder: Path, **seconds: float) -> None:
    """Write other seconds into the manifests."""
    for name, spent in seconds.items():
        kept = {key: value for key, value in read_manifest(folder / name).items() if key != CHECKSUM}
        write_manifest(folder / name, {**kept, "seconds": spent})


@pytest.fixture
def before(tmp_path: Path) -> Path:
    folder = tmp_path / "before"
    opened(folder).execute()
    measure(folder, data=100.0, answers=240.0, report=20.0)
    return folder


def test_without_a_measured_run_the_stages_are_listed_with_their_sizes_and_no_time(tmp_path: Path) -> None:
    said = forecast(opened(tmp_path / "new")).sentence()
    assert "3 of 3 stages to run: data, answers (20), report." in said
    assert "unknown" in said and not re.search(r"minute|hour|[Rr]oughly", said)


def test_the_time_is_that_of_a_measured_run_scaled_by_the_amounts(tmp_path: Path, before: Path) -> None:
    same = forecast(opened(tmp_path / "new"))
    assert same.seconds == pytest.approx(360) and not same.unmeasured and not same.other_log
    assert same.sentence().endswith(f"Roughly 6 minutes, based on {before}.")
    twice = forecast(opened(tmp_path / "new", size={"test_prompts": 40}))
    assert twice.seconds == pytest.approx(360 + 240) and twice.pending["answers"] == 40
    most = forecast(opened(tmp_path / "new", size={"test_prompts": 500}))
    assert most.pending["answers"] == 50, "a log of 50 users has no more prompts"


def test_another_log_is_assumed_to_be_as_large_and_another_model_is_no_measure(tmp_path: Path, before: Path) -> None:
    other = forecast(opened(tmp_path / "new", data={"source": "world:shop"}))
    assert other.other_log and "if this log is about as large as theirs" in other.sentence()
    assert not forecast(opened(tmp_path / "new", language={"model": "another"})).runs


def test_a_resumed_run_goes_by_its_own_manifests_and_counts_what_is_left(tmp_path: Path, before: Path) -> None:
    assert "All 3 stages are finished" in forecast(opened(before)).sentence()
    changed = opened(before, size={"test_prompts": 10})
    found = forecast(changed)
    assert list(found.pending) == ["answers", "report"] and found.seconds == pytest.approx(120 + 20)
    assert found.runs == (str(before),)
    changed.force(["data"])
    assert list(forecast(changed).pending) == ["data", "answers", "report"]


def test_a_stage_that_was_never_measured_is_named(tmp_path: Path, before: Path) -> None:
    class Further(Telling):
        name = "further"

    found = forecast(opened(tmp_path / "new", (*STAGES, Further())))
    assert found.unmeasured == ("further",) and "never measured: further. The estimate" in found.sentence()


def test_damaged_neighbours_are_passed_over(tmp_path: Path, before: Path) -> None:
    (tmp_path / "broken" / "data").mkdir(parents=True)
    for file in ("config.json", "data/manifest.json"):
        (tmp_path / "broken" / file).write_text("{")
    (before / "answers" / "manifest.json").write_text("[]")
    found = forecast(opened(tmp_path / "new"))
    assert found.unmeasured == ("answers",) and found.runs == (str(before),)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "a minute or less"), (61, "1 minute"), (662, "11 minutes"), (3100, "50 minutes"), (9000, "2 hours"), (300_000, "3 days")],
)  # fmt: skip
def test_durations_are_no_more_exact_than_they_are_known(seconds: float, text: str) -> None:
    assert duration(seconds) == text
