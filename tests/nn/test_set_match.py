"""Agreement with histories and weighted sets, against the definition and byte by byte."""

import numpy as np

from taiji.nn.set_match import history_match, top_three, weighted_match, weighted_mean

RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-1, 1, (6, 5)).astype(np.float32)


def test_history_against_the_definition():
    known = np.ones(COSINES.shape, dtype=bool)
    known[1:, 0], known[:, 1], known[0, 2] = False, False, False
    found = history_match(np.where(known, COSINES, 0)[:, :, None], known)
    for place in range(5):
        there = COSINES[known[:, place], place].astype(float)
        decay = 0.8 ** np.flatnonzero(known[:, place])
        if not len(there):
            assert not found[:, place].any()
            continue
        expected = [
            there.mean(),
            there.max(),
            np.sort(there)[::-1][:3].mean(),
            COSINES[0, place] if known[0, place] else 0.0,
            (there * decay).sum() / decay.sum(),
        ]
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-5)


def test_weighted_against_the_definition():
    weights = RNG.uniform(0, 1, COSINES.shape)
    weights[weights < 0.3] = 0.0
    weights[:, 4] = 0.0
    found = weighted_match(COSINES, weights, 0.2)
    for place in range(4):
        share = weights[:, place] / weights[:, place].sum()
        kept = share > 0
        expected = [
            COSINES[kept, place].max(),
            (share * COSINES[:, place]).sum(),
            0.2 * np.log((share * np.exp(COSINES[:, place].astype(float) / 0.2)).sum()),
        ]
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-4)
    assert not found[:, 4].any()


def test_each_candidate_alone_is_the_same_bytes():
    known = RNG.uniform(size=(50, 4)) < 0.8
    cosines = np.where(known[:, :, None], RNG.uniform(-1, 1, (50, 4, 333)), 0).astype(np.float32)
    whole = history_match(cosines, known).reshape(5, 4, 333)
    for request in range(4):
        for place in (0, 7, 332):
            one = cosines[:, request : request + 1, place : place + 1]
            alone = history_match(one, known[:, request : request + 1])
            assert alone.tobytes() == np.ascontiguousarray(whole[:, request, place]).tobytes()


def test_longer_padding_changes_nothing():
    known = np.ones(COSINES.shape, dtype=bool)
    padded = np.concatenate([COSINES, np.zeros((9, 5), np.float32)])
    unknown = np.concatenate([known, np.zeros((9, 5), bool)])
    longer, shorter = history_match(padded[:, :, None], unknown), history_match(COSINES[:, :, None], known)
    assert longer.tobytes() == shorter.tobytes()


def test_fewer_than_asked_for():
    np.testing.assert_array_equal(top_three(np.array([[1.0], [0.5]], np.float32)), [[1.0], [0.5], [-2.0]])
    assert not history_match(np.zeros((0, 1, 2), np.float32), np.zeros((0, 1), bool)).any()
    assert not weighted_mean(np.ones((1, 2)), np.zeros((1, 2))).any()
