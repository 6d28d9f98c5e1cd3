"""Values by hand, paired differences, identity of an arm with itself, and users as the unit."""

import numpy as np
import pytest

from taiji.metrics.list_evaluation import evaluate_lists
from taiji.metrics.list_metrics import Targets

RANDOM = np.random.default_rng(0)
USERS = np.arange(60)
TARGETS = Targets.of(USERS, USERS % 7, 60)
GOOD = np.stack([[u % 7, 7, 8] if u % 3 else [7, 8, 9] for u in USERS])
POOR = np.stack([[7, u % 7, 8] if u % 2 else [7, 8, 9] for u in USERS])
POPULARITY = np.full(10, 0.5)


def rows(lists, **options):
    found = evaluate_lists(lists, TARGETS, USERS, depths=(1, 3), popularity=POPULARITY, resamples=300, **options)
    return {(row["arm"], row["metric"]): row for row in found}


def test_values_and_differences():
    found = rows({"poor": POOR, "good": GOOD}, against="poor")
    assert found["good", "recall@1"]["value"] == pytest.approx(40 / 60)
    assert found["poor", "recall@3"]["value"] == pytest.approx(30 / 60)
    assert found["poor", "ndcg@3"]["value"] == pytest.approx(30 / 60 / np.log2(3))
    gap = found["good", "recall@1"]["difference"]
    assert gap["against"] == "poor" and gap["value"] == pytest.approx(40 / 60) and gap["low"] > 0.4
    assert found["good", "coverage@1"]["value"] == 0.8 and found["good", "novelty@3"]["value"] == 1.0
    assert "difference" not in found["poor", "recall@1"]


def test_an_arm_that_is_the_other_is_said_to_be_so():
    gap = rows({"a": GOOD, "b": GOOD.copy()}, against="a")["b", "ndcg@3"]["difference"]
    assert (gap["value"], gap["method"]) == (0.0, "identity")


def test_users_are_averaged_before_they_count():
    users = np.r_[np.zeros(30, int), np.arange(1, 31)]
    found = evaluate_lists({"good": GOOD}, TARGETS, users, depths=(1,), popularity=POPULARITY, resamples=50)
    first = np.mean([u % 3 > 0 for u in range(30)])
    expected = np.mean([first, *(u % 3 > 0 for u in range(30, 60))])
    assert found[0]["value"] == pytest.approx(expected) and found[0]["n"] == 31


def test_a_metric_of_some_arms_is_compared_among_these():
    def further(lists):
        return {f"first@{lists.shape[1]}": lists[:, 0].astype(float)}

    found = rows({"long": GOOD, "short": GOOD[:, :2], "other": POOR}, further=further, against="long")
    assert {arm for arm, metric in found if metric == "first@2"} == {"short"}
    assert {arm for arm, metric in found if metric == "first@3"} == {"long", "other"}
    assert "difference" in found["other", "first@3"] and "difference" in found["short", "recall@1"]


def test_kinds_of_categories_are_told_apart():
    found = rows({"good": GOOD}, categories=np.arange(10) // 8)
    # Items 0 to 7 are of one category: of three pairs in each list, those with the 8 (and the 9) differ.
    assert found["good", "diversity@3"]["value"] == pytest.approx(2 / 3)
