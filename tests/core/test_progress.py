"""Progress as plain lines where a program asks for it, in the log of a library, silent for short jobs and where it was
silenced."""

from __future__ import annotations

import pytest

from taiji.core import progress


@pytest.fixture
def slow(monkeypatch):
    """A clock that goes on by three seconds whenever it is read."""
    now = iter(range(0, 10**6, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    progress.silence(False)
    yield
    progress._Display.shown = None


def test_a_long_job_says_how_far_it_is_and_how_long_it_took(slow, capsys):
    assert list(progress.track(range(8), "Counting", unit="rows")) == list(range(8))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Counting: ") and "/8 rows, " in lines[0] and "s left" in lines[0]
    assert lines[-1].startswith("Counting: 8 rows in ")


def test_a_library_writes_to_the_log_and_to_nobody_else(slow, capsys, caplog):
    progress._Display.shown = None
    with caplog.at_level("INFO", logger="taiji.core.progress"):
        list(progress.track(range(8), "Counting"))
    assert caplog.messages[-1].startswith("Counting: 8 rows in ")
    assert capsys.readouterr() == ("", "")


def test_a_job_within_another_tells_that_it_is_alive_and_no_number_twice(slow, capsys):
    with progress.progress("Answering", 2, "prompts") as update:
        list(progress.track(range(2), "Generating", unit="texts"))
        update(2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Generating", "Answering"]
    assert lines[0].startswith("Generating: 1/2 texts, ") and lines[1].startswith("Answering: 2 prompts in ")


def test_one_is_no_plural(slow, capsys):
    list(progress.track(range(1), "Joining", unit="ranges of users"))
    list(progress.track((n for n in range(2)), "Reading"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Joining: 1 range of users in ") and lines[1].startswith("Reading: 1 row, ")


def test_a_short_job_says_nothing(capsys):
    with progress.progress("Counting", 3) as update:
        update(3)
    assert capsys.readouterr().err == ""


def test_silenced_is_silent_until_it_is_not(slow, capsys):
    progress.silence(True)
    assert list(progress.track(range(8), "Counting")) == list(range(8))
    assert capsys.readouterr().err == ""
    progress.silence(False)
    list(progress.track(range(8), "Counting"))
    assert "Counting" in capsys.readouterr().err


def test_a_job_that_may_end_early_gives_an_upper_bound_and_its_purpose(slow, capsys):
    with (
        progress.purpose("ladder, 2 of 4"),
        progress.purpose("without text_match"),
        progress.progress("Ranker", 8, early=True) as update,
    ):
        update(2)
        update(4)
    list(progress.track(range(8), "Counting"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Ranker (ladder, 2 of 4, without text_match): ")
    assert " at most " in lines[0] and lines[0].endswith(" s left")
    assert "(" not in lines[-1]  # the purpose ends with its block
