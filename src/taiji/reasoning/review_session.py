"""Review session of one person: list the drafts that wait for this person, and apply each judgement.

A record is one rationale under review, with all its drafts. A sheet is the review form of one draft. All decisions are
stored in the folder, so that a session can be interrupted and resumed at any time::

    <name>.done.jsonl    sheets that the person has filled in
    <name>.todo.jsonl    sheets that the person still has to fill in
    log.jsonl            every step, with a hash chain (:class:`taiji.reasoning.curation.AuditLog`)
    outcomes.parquet     the outcome of each record
    summary.json         counts, agreement, mean scores, and the chain's last hash
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl

from taiji.core.artifacts import write_json, write_parquet
from taiji.core.errors import InputError
from taiji.core.locks import exclusive
from taiji.reasoning.curation import AuditLog, Outcome, agreement_of, run_review
from taiji.reasoning.reviewers import AXES, Draft, PersonReviewer, Remembered, Review, Reviewer
from taiji.reasoning.settings import ReviewSettings

OUTCOME = {"record": pl.String, "status": pl.String, "rationale": pl.String, "rounds": pl.Int64, "by": pl.String}


class NotWaiting(InputError):
    """Error for a judgement of a draft that no longer waits for one: it was already judged, or is in another round."""


class ReviewSession:
    """Review session. Use it as a context manager, which locks the folder.

    Args:
        drafts: first drafts, one per record.
        person: the reviewer.
        beside: additional reviewers of every draft (rules, a model, people who have reviewed already or will review
            later).
        settings: smallest score that passes, share of reviewers who must agree, and number of rejected drafts after
            which a record is rejected, because a session has no panel.
        folder: folder of the session's files, see the module docstring.

    Raises:
        TaijiError: another session is open, or the log was tampered with.
    """

    def __init__(
        self,
        drafts: Sequence[Draft],
        person: PersonReviewer,
        beside: Sequence[Reviewer],
        settings: ReviewSettings,
        folder: str | Path,
    ) -> None:
        self.drafts = {draft.record: draft for draft in drafts}
        self.person, self.beside, self.settings, self.folder = person, list(beside), settings, Path(folder)
        self.log = AuditLog()
        self.outcomes: dict[str, Outcome] = {}
        self.earlier: dict[str, Outcome] = {}

    def __enter__(self) -> ReviewSession:
        self._lock = exclusive(
            self.folder / ".lock",
            "Another review session of this run is open.",
            where=self.folder,
            fix="close it first; its judgements are kept",
        )
        try:
            if (self.folder / "log.jsonl").exists():
                self.log = AuditLog.load(self.folder / "log.jsonl")
            if (self.folder / "outcomes.parquet").exists():
                rows = pl.read_parquet(self.folder / "outcomes.parquet").iter_rows(named=True)
                self.earlier = {row["record"]: Outcome(**row) for row in rows if row["record"] not in self.drafts}
            self.judge(list(self.drafts.values()))
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def judge(self, drafts: Sequence[Draft]) -> None:
        """Advance the records as far as the existing reviews allow, and store the result."""
        before = self.log.reviews()
        reviewers: list[Reviewer] = [self.person, *(Remembered(reviewer, before) for reviewer in self.beside)]
        for outcome in run_review(drafts, reviewers, self.person.rewrite, self.settings, self.log):
            self.outcomes[outcome.record] = outcome
        self.person.ask(self.waiting())
        self.log.save(self.folder / "log.jsonl")
        write_parquet(self.folder / "outcomes.parquet", pl.DataFrame([asdict(o) for o in self._all()], schema=OUTCOME))
        write_json(self.folder / "summary.json", self.summary())

    def _all(self) -> list[Outcome]:
        """Return the outcomes of all records, including those of earlier sessions over other drafts."""
        return [*self.earlier.values(), *self.outcomes.values()]

    def waiting(self) -> list[Draft]:
        """Return the drafts that wait for this person, in the order of the session's drafts."""
        open_drafts = [
            replace(self.drafts[outcome.record], rationale=outcome.rationale, round=outcome.rounds)
            for outcome in self.outcomes.values()
            if outcome.status == "waiting"
        ]
        return [draft for draft, review in zip(open_drafts, self.person.review(open_drafts)) if review is None]

    def submit(
        self, record: str, round_number: int, scores: Mapping[str, Any], feedback: str = "", rewrite: str = ""
    ) -> Outcome:
        """Record this person's judgement of a waiting draft, and return the outcome of the record so far.

        Args:
            record: name of the record.
            round_number: round of the draft that was shown.
            scores: scores from 1 to 5, by axis.
            feedback: what should be improved.
            rewrite: a better text, which becomes the next round's draft if the waiting draft is not accepted.

        Raises:
            NotWaiting: the draft was judged already, or is in another round.
            InputError: the review is incomplete.
        """
        draft = next((d for d in self.waiting() if (d.record, d.round) == (record, round_number)), None)
        if draft is None:
            raise NotWaiting(
                "This draft is no longer open for review.",
                where=f"{record}, round {round_number}",
                fix="continue with the next one",
            )
        self.person.fill_in(
            draft, Review(self.person.name, self.person.kind, dict(scores), feedback.strip()), " ".join(rewrite.split())
        )
        self.judge([self.drafts[record]])
        return self.outcomes[record]

    def progress(self) -> dict[str, int]:
        """Return numbers of records: ``total``, ``waiting`` (with a draft that waits for this person), ``judged`` (not
        waiting for this person), ``accepted`` and ``rejected``."""
        counts = Counter(outcome.status for outcome in self.outcomes.values())
        total, waiting = len(self.drafts), len(self.waiting())
        return {
            "total": total,
            "judged": total - waiting,
            "accepted": counts["accepted"],
            "rejected": counts["rejected"],
            "waiting": waiting,
        }

    def summary(self) -> dict[str, Any]:
        """Return counts, Fleiss' κ (None if undefined, as with one reviewer), mean scores and the chain's last hash."""
        kappa = agreement_of(self.log, self.settings.bar)
        scores: dict[str, list[dict[str, int]]] = {}
        for entry in self.log.entries:
            if entry["step"] == "review":
                scores.setdefault(entry["data"]["reviewer"], []).append(entry["data"]["scores"])
        means = {
            name: {axis: float(np.mean([row[axis] for row in rows])) for axis in AXES}
            for name, rows in sorted(scores.items())
        }
        counts = Counter(outcome.status for outcome in self._all())
        return {
            "records": {status: counts[status] for status in ("accepted", "rejected", "waiting")},
            "kappa": None if math.isnan(kappa) else kappa,
            "means": means,
            "entries": len(self.log.entries),
            "head": self.log.head,
        }
