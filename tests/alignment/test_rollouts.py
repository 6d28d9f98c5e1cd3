"""The sample of rollouts is bounded, whole groups, and what a kill left behind is taken up."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from taiji.alignment.rollouts import KEPT, Rollouts


def judged(rollouts, count, text="text"):
    rewards = {"first": lambda e, c: np.arange(len(c), dtype=float), "second": lambda e, c: np.full(len(c), np.nan)}
    for name, reward in rewards.items():
        rollouts.watched(name, reward)([f"e{i // 6}" for i in range(count)], [f"{text} {i}" for i in range(count)])


def test_a_step_keeps_whole_groups_and_no_more_than_allowed(tmp_path):
    rollouts = Rollouts(tmp_path, ["first", "second"], generations=6)
    judged(rollouts, 60)
    rollouts.close_step(1)
    rollouts.save(tmp_path)
    frame = pl.read_parquet(tmp_path / "rollouts.parquet")
    assert len(frame) == 12 <= KEPT
    assert frame["example"].to_list() == ["e0"] * 6 + ["e1"] * 6
    assert frame.unnest("rewards")["first"].to_list() == list(range(12))
    assert frame.unnest("rewards")["second"].null_count() == 12, "not applicable is null"


def test_a_group_larger_than_the_bound_is_kept_whole(tmp_path):
    rollouts = Rollouts(tmp_path, ["first", "second"], generations=40)
    judged(rollouts, 80)
    rollouts.close_step(1)
    assert len(rollouts.lines) == 40


def test_a_step_keeps_the_batch_judged_last_and_earlier_lines_stay(tmp_path):
    before = {"step": 1, "example": "e", "completion": "kept from before", "rewards": {"first": 1.0, "second": None}}
    rollouts = Rollouts(tmp_path, ["first", "second"], 2, [before])
    judged(rollouts, 2, "replaced")
    judged(rollouts, 2, "stands")
    rollouts.close_step(2)
    rollouts.close_step(3)  # a step that judged nothing
    lines = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [(line["step"], line["completion"]) for line in lines] == [
        (1, "kept from before"),
        (2, "stands 0"),
        (2, "stands 1"),
    ]
