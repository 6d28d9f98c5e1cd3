"""Bounds that follow from the truth, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from taiji.pipeline.oracle import SHUFFLED_ARM, bounds

LEVELS = {"none": 0.7, SHUFFLED_ARM: 0.69, "truth": 0.75, "truth, next 10": 0.76}


def rows(values: dict[str, float], half: float | None, metric: str = "click auc") -> list[dict[str, Any]]:
    """Rows of a study in which every interval has one half-width; None is a study of too few users."""

    def gap(arm: str, other: str) -> dict[str, Any]:
        value = values[arm] - values[other]
        ends = {"low": None, "high": None, "reason": "too few users (6; at least 10 are needed)"}
        return {
            "against": other,
            "value": value,
            **(ends if half is None else {"low": value - half, "high": value + half}),
        }

    made = []
    for arm, value in values.items():
        row: dict[str, Any] = {"features": arm, "group": "all", "metric": metric, "value": value}
        if arm != "none":
            row["difference"] = gap(arm, "none")
        if arm.startswith("truth"):
            row["competitors"] = [gap(arm, SHUFFLED_ARM)]
        made += [row, row | {"group": "sparse", "value": 0.0}]
    return made


def test_a_truth_that_beats_none_and_noise_bounds_what_a_model_can_add():
    near, wide = bounds(rows(LEVELS, 0.01))
    assert near["bound"]["value"] == pytest.approx(0.05) and wide["features"] == "truth, next 10"
    assert near["says"] == (
        "A model that always names the next item would add +0.0500 [+0.0400, +0.0600] click AUC to this ranker."
    )


@pytest.mark.parametrize(
    "values",
    [
        {**LEVELS, "none": 0.734, SHUFFLED_ARM: 0.717, "truth": 0.695},
        {**LEVELS, SHUFFLED_ARM: 0.75},
        {**LEVELS, "none": 0.75, "truth": 0.74},
    ],
    ids=["noise beats the truth", "shuffled as good as the truth", "no features as good as the truth"],
)
def test_no_bound_follows_where_noise_does_as_well(values):
    near = bounds(rows(values, 0.005))[0]
    assert near["bound"] is None and "would add" not in near["says"]
    assert near["says"].startswith("No upper bound follows from") and "cannot use such features here" in near["says"]


def test_no_bound_follows_from_too_few_users():
    near = bounds(rows(LEVELS, None))[0]
    assert near["bound"] is None and "too few users" in near["says"] and "cannot use" not in near["says"]


def test_a_log_with_another_first_label_is_bounded_by_its_own_metric():
    near = bounds(rows({**LEVELS, "truth": 0.6, "truth, next 10": 0.6}, 0.01, "watch_seconds mae"))[0]
    assert near["metric"] == "watch_seconds mae" and near["bound"]["value"] == pytest.approx(-0.1)
    assert bounds([]) == []
