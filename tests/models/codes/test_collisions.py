"""Codes made unique."""

import numpy as np

from taiji.models.codes.collisions import extended_codes, unique_codes


def test_equal_codes_are_told_apart_by_popularity():
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2], [3, 1]])
    found = unique_codes(codes, np.array([5, 1, 9, 5, 0]))
    np.testing.assert_array_equal(found[:, :2], codes)
    assert found[:, 2].tolist() == [1, 0, 0, 2, 0]
    assert len(np.unique(found, axis=0)) == len(codes)


def test_unique_codes_get_no_level():
    codes = np.array([[1, 2], [0, 0]])
    np.testing.assert_array_equal(unique_codes(codes), codes)


def test_a_later_catalogue_keeps_the_last_codes_that_were_learnt():
    codes = np.array([[1, 2], [1, 2], [1, 2], [0, 0], [1, 2], [0, 0]])
    found = extended_codes(codes, np.array([-1, 2, 0, -1, -1, -1]), np.array([1, 9, 0, 3, 7, 4]))
    np.testing.assert_array_equal(found[:, :2], codes)
    assert found[:, 2].tolist() == [3, 2, 0, 1, 1, 0], "the more popular new item gets the first free number"
