"""One way to show a number: the true minus sign, no negative zero, the digits asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taiji.core.number_format import brief_text, general_text, number_text, thousands


def test_fixed_decimals():
    assert number_text(-0.00001, 3) == "0.000" and number_text(-0.25, 2, signed=True) == "−0.25"
    assert number_text(0.25, 1) == "0.2" and number_text(3, 2, signed=True) == "+3.00"


def test_significant_digits():
    shown = [brief_text(v) for v in (None, 0, 0.26, 0.2604, -1.5, 123.4, 12345.6, 1e-7, -0.000655, -0.0)]
    assert shown == ["–", "0", "0.260", "0.260", "−1.50", "123", "12,346", "1.00e−07", "−0.000655", "0"]


def test_round_numbers_and_counts():
    assert [general_text(v) for v in (0.25, -0.5, 2e-05, 12000, -0.0)] == ["0.25", "−0.5", "2e−05", "12,000", "0"]
    assert thousands(1234567) == "1,234,567" and thousands(-1234) == "−1,234"


@given(st.floats(-1e9, 1e9))
def test_no_hyphen_stands_for_a_minus(value):
    texts = [number_text(value, 4), number_text(value, 2, signed=True), brief_text(value), general_text(value)]
    assert not any("-" in text for text in texts)
    assert not any(text.lstrip("−+").strip("0.,") == "" and text.startswith("−") for text in texts)
