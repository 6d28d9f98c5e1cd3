"""A sitting can be broken off anywhere, loses nothing, and says what two people agree on."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.reasoning.curation import AuditLog
from taiji.reasoning.review_session import ReviewSession
from taiji.reasoning.reviewers import AXES, Draft, PersonReviewer, RuleReviewer
from taiji.reasoning.settings import ReviewSettings

GOOD, BAD = dict.fromkeys(AXES, 5), {**dict.fromkeys(AXES, 5), "structure": 2}


def drafts(count: int = 4) -> list[Draft]:
    return [
        Draft(f"r{n}", "- Item title: milk", "Item title: bread", "bread", ("FOOD",), f"Text number {n}.")
        for n in range(count)
    ]


def sitting(folder, name="ada", beside=(), count=4, **values) -> ReviewSession:
    return ReviewSession(drafts(count), PersonReviewer(name, folder), list(beside), ReviewSettings(**values), folder)


def test_accepting_rejecting_and_rewriting(tmp_path):
    with sitting(tmp_path) as session:
        assert [d.record for d in session.waiting()] == ["r0", "r1", "r2", "r3"]
        assert session.submit("r0", 1, GOOD).status == "accepted"
        assert (
            session.submit("r1", 1, BAD, "say more", "Text number 1.").status == "rejected"
        )  # the same text is no better one
        assert session.submit("r2", 1, BAD, rewrite="A better\n text.").status == "waiting"
        assert [(d.record, d.round, d.rationale) for d in session.waiting()] == [
            ("r2", 2, "A better text."),
            ("r3", 1, "Text number 3."),
        ]
        assert session.submit("r2", 2, GOOD).status == "accepted"
        assert session.progress() == {"total": 4, "judged": 3, "accepted": 2, "rejected": 1, "waiting": 1}
    outcomes = pl.read_parquet(tmp_path / "outcomes.parquet")
    assert outcomes.rows() == [
        ("r0", "accepted", "Text number 0.", 1, "reviewers"), ("r1", "rejected", "Text number 1.", 1, "panel"),
        ("r2", "accepted", "A better text.", 2, "reviewers"), ("r3", "waiting", "Text number 3.", 1, "reviewers"),
    ]  # fmt: skip
    log = AuditLog.load(tmp_path / "log.jsonl")
    assert json.loads((tmp_path / "summary.json").read_text())["head"] == log.head
    assert [e["data"]["scores"] for e in log.entries if e["step"] == "review"] == [GOOD, BAD, BAD, GOOD]


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=12),
    breaks=st.sets(st.integers(0, 11)),
)
def test_a_sitting_that_is_broken_off_ends_like_one_that_is_not(tmp_path_factory, steps, breaks):
    def play(folder, broken):
        session = sitting(folder).__enter__()
        for number, (place, good, rewrites) in enumerate(steps):
            waiting = session.waiting()
            if waiting:
                draft = waiting[place % len(waiting)]
                session.submit(
                    draft.record, draft.round, GOOD if good else BAD, rewrite=f"new {number}" if rewrites else ""
                )
            if number in broken:
                session.__exit__(None, None, None)
                session = sitting(folder).__enter__()
        session.__exit__(None, None, None)
        return [
            (folder / name).read_bytes() for name in ("log.jsonl", "summary.json", "outcomes.parquet", "ada.todo.jsonl")
        ]

    assert play(tmp_path_factory.mktemp("whole"), set()) == play(tmp_path_factory.mktemp("broken"), breaks)


def test_a_kill_between_sheet_and_log_loses_nothing(tmp_path):
    with sitting(tmp_path) as session:
        session.submit("r0", 1, GOOD)
        kept = (tmp_path / "log.jsonl").read_bytes()
        session.submit("r1", 1, BAD, rewrite="Better.")
    (tmp_path / "log.jsonl").write_bytes(kept)
    with sitting(tmp_path) as session:
        assert [(d.record, d.round) for d in session.waiting()] == [("r1", 2), ("r2", 1), ("r3", 1)]
        assert len([e for e in session.log.entries if e["step"] == "review"]) == 2


def test_two_people_and_rules(tmp_path):
    with sitting(tmp_path, "ada", [PersonReviewer("ben", tmp_path)]) as session:
        assert {session.submit(f"r{n}", 1, GOOD if n < 2 else BAD).status for n in range(4)} == {"waiting"}
        assert session.waiting() == []
        assert session.summary()["kappa"] is None
    with sitting(tmp_path, "ben", [PersonReviewer("ada", tmp_path)]) as session:
        statuses = [session.submit(f"r{n}", 1, GOOD if n < 2 else BAD).status for n in range(4)]
        assert statuses == ["accepted", "accepted", "rejected", "rejected"]
        assert session.summary()["kappa"] == pytest.approx(1.0)
    with sitting(tmp_path / "rules", "ada", [RuleReviewer()], bar=2) as session:
        assert session.submit("r0", 1, GOOD).status == "rejected"  # the rules find four words insufficient
        assert {e["data"]["reviewer"] for e in session.log.entries if e["step"] == "review"} == {"ada", "rules"}


def test_other_drafts_later_keep_the_earlier_outcomes(tmp_path):
    with sitting(tmp_path, count=4) as session:
        session.submit("r3", 1, GOOD)
    with sitting(tmp_path, count=2) as session:
        assert session.summary()["records"] == {"accepted": 1, "rejected": 0, "waiting": 3}
    assert "r3" in pl.read_parquet(tmp_path / "outcomes.parquet")["record"].to_list()


def test_what_is_refused(tmp_path):
    with sitting(tmp_path) as session:
        with pytest.raises(TaijiError, match="Another review"), sitting(tmp_path):
            pass
        with pytest.raises(TaijiError, match="no longer open"):
            session.submit("r0", 2, GOOD)
        with pytest.raises(TaijiError, match="is incomplete"):
            session.submit("r0", 1, {"structure": 3})
        with pytest.raises(TaijiError, match="is incomplete"):
            session.submit("r0", 1, {**GOOD, "structure": 6})
        session.submit("r0", 1, GOOD)
        with pytest.raises(TaijiError, match="no longer open"):
            session.submit("r0", 1, BAD)
    with pytest.raises(TaijiError, match="file name"):
        PersonReviewer("../ada", tmp_path)
    (tmp_path / "log.jsonl").write_text(
        (tmp_path / "log.jsonl").read_text().replace('"structure": 5', '"structure": 4')
    )
    with pytest.raises(TaijiError, match="tampered"), sitting(tmp_path):
        pass


def test_a_hand_edited_file_without_a_last_newline_is_continued(tmp_path):
    with sitting(tmp_path) as session:
        sheet = json.loads((tmp_path / "ada.todo.jsonl").read_text().splitlines()[0])
    (tmp_path / "ada.done.jsonl").write_text(json.dumps({**sheet, "scores": GOOD}))
    with sitting(tmp_path) as session:
        assert session.outcomes["r0"].status == "accepted"
        session.submit("r1", 1, GOOD)
    with sitting(tmp_path) as session:
        assert session.progress()["accepted"] == 2
