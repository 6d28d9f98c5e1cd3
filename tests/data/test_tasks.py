from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import ConfigError
from taiji.data.tasks import CLICK, CONVERSION, DEFAULT_TASKS, Task, check_tasks, labels

NAN = float("nan")
LIKE = Task(name="like")


def frame(**columns) -> pl.DataFrame:
    return pl.DataFrame({"time": range(len(next(iter(columns.values())))), **columns})


def said(found) -> dict[str, list[float | None]]:
    return {name: [None if np.isnan(value) else float(value) for value in values] for name, values in found.items()}


def test_an_unconditional_label_is_its_column_with_nan_where_it_is_not_known():
    watched = Task(name="watch_seconds", kind="duration")
    found = labels(frame(click=[1, 0, 1], watch_seconds=[2.5, None, 0.0]), (CLICK, watched))
    assert said(found) == {"click": [1, 0, 1], "watch_seconds": [2.5, None, 0]}
    assert all(values.dtype == np.float32 for values in found.values())


def test_conversion_speaks_of_clicks_and_ctcvr_up_to_the_last_known_one():
    given = frame(click=[1, 0, 1, 0, 1, 0], conversion=[1, None, 0, None, None, 0])
    assert said(labels(given, DEFAULT_TASKS)) == {
        "click": [1, 0, 1, 0, 1, 0],
        "conversion": [1, None, 0, None, None, None],
        "ctcvr": [1, 0, 0, None, None, None],
    }


def test_rows_of_the_last_known_labels_own_time_count():
    given = frame(click=[1, 0, 0], conversion=[1, None, None]).with_columns(time=pl.Series([5, 5, 6]))
    assert said(labels(given, DEFAULT_TASKS))["ctcvr"] == [1, 0, None]


def test_an_unknown_condition_leaves_everything_open():
    given = frame(like=[None, 1, 0], follow=[1, 1, 1])
    found = said(labels(given, (LIKE, Task(name="follow", given="like"))))
    assert found == {"like": [None, 1, 0], "follow": [None, 1, None], "like_follow": [None, 1, None]}


def test_a_chain_of_conditions_uses_what_happened_before():
    tasks = check_tasks([Task(name="pay", given="cart"), Task(name="cart", given="click"), CLICK])
    assert [task.name for task in tasks] == ["click", "cart", "pay"]
    given = frame(click=[1, 1, 1, 0], cart=[1, 1, 0, 0], pay=[1, 0, 1, 1])
    found = said(labels(given, tasks))
    assert found["cart"] == [1, 1, 0, None] and found["click_cart"] == [1, 1, 0, None]
    assert found["pay"] == [1, 0, None, None]
    assert found["cart_pay"] == [1, 0, None, None]


def test_only_binary_conditional_labels_have_a_joint_one():
    assert Task(name="seconds", kind="duration", given="click").heads == ("seconds",)
    assert Task(name="liked", given="click").heads == ("liked", "click_liked")
    assert Task(name="liked", kind="survey", given="click").heads == ("liked",), "those not asked say nothing"
    assert CLICK.heads == ("click",) and CONVERSION.heads == ("conversion", "ctcvr")
    seconds = labels(
        frame(click=[1, 0], seconds=[3.0, 4.0]), (CLICK, Task(name="seconds", kind="duration", given="click"))
    )
    assert said(seconds) == {"click": [1, 0], "seconds": [3, None]}


def test_missing_columns_are_known_nowhere():
    found = labels(pl.DataFrame({"time": [1, 2]}), DEFAULT_TASKS)
    assert said(found) == {name: [None, None] for name in ("click", "conversion", "ctcvr")}


ROWS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([0, 1]), st.sampled_from([0, 1, None])), min_size=0, max_size=25
)


def log(rows) -> pl.DataFrame:
    schema = {"time": pl.Int64, "click": pl.Int8, "conversion": pl.Int8}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("time", maintain_order=True)


def click_conversion_ctcvr(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labels of the ranker as it was before it knew of tasks, written out for its two labels."""
    click = frame["click"].cast(pl.Float32).fill_null(NAN).to_numpy()
    label = frame["conversion"].cast(pl.Float32).fill_null(NAN).to_numpy()
    conversion = np.where(click == 1, label, np.nan).astype(np.float32)
    known, time = np.isfinite(conversion), frame["time"].to_numpy()
    horizon = time[known].max() if known.any() else np.iinfo(np.int64).min
    ctcvr = np.where(click == 0, np.where(time <= horizon, 0.0, np.nan), conversion).astype(np.float32)
    return click, conversion, ctcvr


@settings(deadline=None)
@given(ROWS)
def test_click_and_conversion_are_those_of_a_ranker_with_two_labels(rows):
    given = log(rows)
    found = labels(given, DEFAULT_TASKS)
    click, conversion, ctcvr = click_conversion_ctcvr(given)
    for name, wanted in (("click", click), ("conversion", conversion), ("ctcvr", ctcvr)):
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].dtype == wanted.dtype


@settings(deadline=None)
@given(ROWS)
def test_ctcvr_is_known_up_to_the_last_known_conversion_but_for_open_clicks(rows):
    given = log(rows)
    click, known = given["click"].to_numpy() == 1, given["conversion"].is_not_null().to_numpy()
    time = given["time"].to_numpy()
    last = time[click & known].max(initial=-1)
    expected = (time <= last) & (known | ~click)
    np.testing.assert_array_equal(np.isfinite(labels(given, DEFAULT_TASKS)["ctcvr"]), expected)


BROKEN = {
    "twice": ([CLICK, Task(name="click")], ["same name", "click"]),
    "a prediction's name": ([CLICK, CONVERSION, Task(name="ctcvr")], ["same name", "ctcvr"]),
    "grades": ([Task(name="stars", kind="ordinal")], ["labels.stars", "levels: 5"]),
    "unknown condition": ([CLICK, Task(name="pay", given="cart")], ["labels.pay.given", "one of click", "cart"]),
    "condition of a number": (
        [Task(name="seconds", kind="duration"), Task(name="pay", given="seconds")],
        ["labels.pay.given", "seconds"],
    ),
    "circle": ([Task(name="a", given="b"), Task(name="b", given="a")], ["cycle", "a given b, b given a"]),
    "itself": ([Task(name="a", given="a")], ["cycle", "found: a"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_tasks_that_contradict_each_other_are_a_clear_error(case):
    tasks, words = BROKEN[case]
    with pytest.raises(ConfigError) as caught:
        check_tasks(tasks)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_the_order_given_stays_where_no_condition_asks_for_another():
    tasks = [Task(name="b"), Task(name="c", given="a"), Task(name="a"), Task(name="d", given="a")]
    assert [task.name for task in check_tasks(tasks)] == ["b", "a", "c", "d"]
