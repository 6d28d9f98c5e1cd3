"""Admission: as many as can be answered in time, and no key waits for another one's flood."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from taiji.serving.admission import FEWEST, MOST, Admission
from taiji.serving.batching import Overloaded


def enter(admission: Admission, stack: ExitStack, key: str, times: int) -> int:
    """How many of so many requests of a key are let in."""
    done = 0
    for _ in range(times):
        try:
            stack.enter_context(admission.turn(key))
            done += 1
        except Overloaded:
            pass
    return done


def test_as_many_are_let_in_as_can_be_answered_in_time() -> None:
    admission = Admission(wait_s=1.0)
    with ExitStack() as stack:
        assert enter(admission, stack, "a", 300) == MOST  # nothing is known yet
    admission.note(10, 0.5)  # 50 ms each
    with ExitStack() as stack:
        assert enter(admission, stack, "a", 300) == 20
        with pytest.raises(Overloaded) as refused, admission.turn("a"):
            pass
        assert refused.value.seconds == pytest.approx(1.0)
    with ExitStack() as stack:
        assert enter(admission, stack, "a", 300) == 20  # those who left make room


def test_the_measured_time_follows_the_latest_batches_and_never_closes_the_door() -> None:
    admission = Admission(wait_s=1.0)
    admission.note(1, 100.0)
    assert admission.room == FEWEST
    for _ in range(60):
        admission.note(16, 0.16)
    assert 95 <= admission.room <= 100


def test_a_key_is_let_in_beside_another_ones_flood() -> None:
    admission = Admission(wait_s=1.0)
    admission.note(1, 0.05)
    with ExitStack() as stack:
        assert enter(admission, stack, "flood", 300) == 20
        assert enter(admission, stack, "shop", 300) == 10  # half of the room
        assert enter(admission, stack, "third", 300) == 7  # a third
        assert enter(admission, stack, "flood", 300) == 0
    assert not admission._inside


def test_who_leaves_by_an_error_leaves_too() -> None:
    admission = Admission(wait_s=1.0)
    with pytest.raises(ValueError), admission.turn("a"):
        raise ValueError
    assert not admission._inside
