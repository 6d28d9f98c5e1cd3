"""Lines through measured runs."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.core.errors import TaijiError
from taiji.scale.rates import _line, measured


def test_two_sizes_tell_the_fixed_part_from_the_growing_one():
    line = _line(np.array([10.0, 40.0]), np.array([5.0, 14.0]))
    assert (line.fixed, line.slope) == (pytest.approx(2.0), pytest.approx(0.3))


def test_one_size_goes_through_the_origin():
    assert _line(np.array([10.0, 10.0]), np.array([4.0, 6.0]))(20.0) == pytest.approx(9.23, rel=0.01), (
        "relative errors count"
    )
    assert _line(np.array([10.0]), np.array([5.0]))(20.0) == pytest.approx(10.0)


@pytest.mark.parametrize("seconds", [[5.0, 3.0], [1.0, 8.0]])
def test_noise_gives_neither_a_negative_slope_nor_a_negative_start(seconds):
    line = _line(np.array([10.0, 40.0]), np.array(seconds))
    assert line.fixed >= 0 and line.slope >= 0


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(TaijiError, match="not finished"):
        measured(tmp_path)
