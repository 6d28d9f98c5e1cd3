import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from taiji.models.codes.code_log import CodeLog

ENTRY = st.tuples(st.integers(0, 9), st.integers(0, 4))


@given(st.lists(ENTRY, max_size=30), st.lists(st.tuples(st.integers(-1, 6), st.integers(-2, 12)), max_size=20))
def test_the_last_assignment_by_a_time_applies(entries, asked):
    entries = sorted(entries, key=lambda entry: entry[0])
    times, items = np.array(entries, np.int64).reshape(-1, 2).T
    log = CodeLog(times, items, np.arange(len(items))[:, None])
    wanted = [
        max((at for at, (when, whose) in enumerate(entries) if whose == item and when <= time), default=-1)
        for item, time in asked
    ]
    queries = np.array(asked, np.int64).reshape(-1, 2)
    assert log.last(*queries.T).tolist() == wanted
    for time in range(-1, 11):
        expected = log.last(np.arange(6), np.full(6, time))
        np.testing.assert_array_equal(log.at_tick(int(log.tick(np.asarray(time))), 6), expected)


def test_constant_codes_apply_at_every_time():
    log = CodeLog.constant(np.arange(6).reshape(3, 2))
    assert not log.changes
    times = np.array([[np.iinfo(np.int64).min], [0], [5]])
    np.testing.assert_array_equal(log.last(np.array([[2, 0, -1, 3]]) + 0 * times, times), [[2, 0, -1, -1]] * 3)
    np.testing.assert_array_equal(log.at_tick(1, 3), [0, 1, 2])
