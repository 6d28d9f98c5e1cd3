"""Charts place what they are given, and survive the extremes."""

from __future__ import annotations

import itertools
import re
from xml.dom import minidom

from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.evaluation.charts import (
    histogram,
    interval_track,
    line_chart,
    log_ticks,
    nice_ticks,
    running_mean,
    span_of,
    spread,
)


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(0, 1e6, allow_subnormal=False))
@settings(max_examples=80, deadline=None)
def test_ticks_are_few_ascending_and_span_the_values(low, width):
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8 and ticks == sorted(set(ticks))
    assert ticks[0] <= low + 1e-6 * (abs(low) + width) and ticks[-1] >= low + width - 1e-6 * (abs(low) + width)


def test_log_ticks_are_round_and_inside():
    assert log_ticks(0.9, 16) == [1, 3, 10]
    assert log_ticks(2.1, 4.4) == [2.2, 4.4] or all(2.1 <= t <= 4.4 for t in log_ticks(2.1, 4.4))


numbers = st.one_of(st.none(), st.floats(-100, 100))


@given(
    st.dictionaries(st.sampled_from(["a", "b<c", "d&e"]), st.lists(numbers, min_size=5, max_size=5), max_size=3),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_line_charts_are_well_formed_whatever_the_values(series, noisy):
    minidom.parseString(str(line_chart(series, [1, 2, 3, 4, 5], label="a <b>", noisy=noisy)))


def test_a_line_chart_of_one_step_shows_a_dot_and_of_none_says_so():
    assert "<circle" in line_chart({"a": [0.5]}, [1], label="x")
    assert "No steps" in line_chart({}, [], label="x")
    assert "No steps" in line_chart({"a": [None]}, [1], label="x")


def test_long_noisy_curves_get_a_running_mean():
    values = [float(k % 2) for k in range(40)]
    assert line_chart({"a": values}, range(40), label="x", noisy=True).count("<path") == 2
    assert line_chart({"a": values}, range(40), label="x").count("<path") == 1
    assert running_mean([1.0, 3.0, 5.0], 1) == [1.0, 2.0, 4.0]


def test_a_histogram_counts_everything_and_marks_the_threshold():
    chart = histogram([1.5, 2, 2, 3, 5, 8, 300], 3.0, label="x")
    minidom.parseString(str(chart))
    assert sum(int(n) for n in re.findall(r"<title>(\d+) near", chart)) == 7
    assert "R = 3.00" in chart
    assert "No perplexities" in histogram([2.0], 3.0, label="x")
    minidom.parseString(str(histogram([2.0, 2.0], None, label="x")))


def test_tracks_place_by_percentage_and_point_beyond_the_scale():
    track = interval_track(0.5, 0.25, 0.75, (0.0, 1.0), zero=True)
    assert "left:25.00%;width:50.00%" in track and 'class="point s0" style="left:50.00%"' in track and "zero" in track
    assert "beyond" in interval_track(2.0, None, None, (0.0, 1.0))
    assert "point" not in interval_track(None, None, None, (0.0, 1.0))


def test_spans_hold_everything_with_a_margin():
    low, high = span_of([(0.2, 0.1, 0.3), (None, None, None)])
    assert low < 0.1 and high > 0.3
    assert span_of([(0.2, 0.1, 0.3)], zero=True)[0] < 0
    assert span_of([]) == (0.0, 1.0)


def test_labels_are_moved_apart():
    places = spread([50.0, 52.0, 53.0], 30)
    assert all(b - a >= 30 for a, b in itertools.pairwise(places))
    assert spread([200.0, 201.0], 30)[-1] <= 210
