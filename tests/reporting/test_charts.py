"""Charts place what they are given, and survive the extremes."""

from __future__ import annotations

import itertools
import re
from xml.dom import minidom

from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.reporting.charts import (
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
    st.dictionaries(
        st.sampled_from(["a", "b<c", "d&e", "a name <of> many letters"]),
        st.lists(numbers, min_size=5, max_size=5),
        max_size=3,
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_line_charts_are_well_formed_whatever_the_values(series, noisy):
    chart = line_chart(series, [1, 2, 3, 4, 5], label="a <b>", noisy=noisy)
    minidom.parseString(f"<div>{chart}</div>")


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


values = st.lists(st.floats(1.0, 1e4), min_size=2, max_size=150)


@given(values, st.one_of(st.floats(0.5, 2e4), st.integers(0, 149)))
@settings(max_examples=150, deadline=None)
def test_the_coloured_bars_of_a_histogram_count_what_lies_below_the_threshold(values, threshold):
    if isinstance(threshold, int):  # one of the values itself, which does not lie below
        threshold = values[threshold % len(values)]
    chart = str(histogram(values, threshold, label="x"))
    counts = {"kept": 0, "rejected": 0}
    for tone, count in re.findall(r'class="bar (\w+)".*?<title>(\d+) near', chart):
        counts[tone] += int(count)
    below = sum(value < threshold for value in values)
    assert counts == {"kept": below, "rejected": len(values) - below}
    minidom.parseString(chart)


def test_the_threshold_is_an_edge_between_two_bars():
    chart = str(histogram([1.0 + number / 10 for number in range(60)], 3.33, label="x"))
    line = float(re.search(r'class="threshold" x1="([\d.]+)"', chart)[1])
    bars = [
        (tone, float(left), float(left) + float(width))
        for tone, left, width in re.findall(r'bar (\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
    ]
    assert all(right < line for tone, _, right in bars if tone == "kept")
    assert all(left > line for tone, left, _ in bars if tone == "rejected")
    assert len(bars) in (24, 25) and {tone for tone, *_ in bars} == {"kept", "rejected"}


def test_long_names_go_into_a_legend_and_short_ones_stay_at_the_ends():
    short = str(line_chart({"semantic": [0.1, -0.000655]}, [1, 2], label="x"))
    long = str(line_chart({"semantic, quarter": [0.1, 0.2], "a <b>, run": [0.3, None]}, [1, 2], label="x"))
    assert 'class="keys"' not in short and "−0.000655" in short and "-0.000655" not in short
    svg, legend = long.split("</svg>")
    assert "semantic, quarter" in legend and "a &lt;b&gt;, run" in legend and 'class="name' not in svg
    assert legend.count("<li>") == 2 and "0.300" in legend, "the last known value"
    ends = [float(re.search(r'data-ends="[\d.]+ ([\d.]+)"', chart)[1]) for chart in (short, long)]
    assert ends[0] < 0.85 < 0.95 < ends[1], "the curves take the room of the names"
    many = {f"n{number}": [0.1, 0.2] for number in range(7)}
    assert "keys" in str(line_chart(many, [1, 2], label="x"))


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
