"""Known times; nothing is added at first."""

import numpy as np
import torch

from taiji.nn.time_encoding import DAY, HOUR, TimeEncoding, time_features


def test_features_of_known_times():
    # 1970-01-01 was a Thursday, the origin of both circles.
    times = np.array([0, 6 * HOUR, 7 * DAY, 3.5 * DAY], dtype=np.int64)
    found = time_features(times, np.array([0, 5 * HOUR, 8 * DAY, 0], dtype=np.int64))
    expected = [[0, 1, 0, 1, 0], [1, 0, np.sin(np.pi / 14), np.cos(np.pi / 14), np.log(2) / 10]]
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    np.testing.assert_allclose(
        found[2], [0, 1, 0, 1, 0], atol=1e-6
    )  # a week later is the same place; no gap below zero
    np.testing.assert_allclose(found[3, :4], [0, -1, 0, -1], atol=1e-6)


def test_nothing_is_added_at_first():
    assert (TimeEncoding(4)(torch.randn(3, 5)) == 0).all()
