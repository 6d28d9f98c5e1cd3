"""Curation by review.

A record is one rationale with all its drafts. Each draft passes an answer check and then the reviewers. A draft is
accepted if all reviewers, or a given share of them, rate every axis at or above the bar (the lowest passing score). A
rejected draft is a strike: it is rewritten with the feedback and reviewed again. After the last strike, a panel
decides. This generalises the loop of MedCoT (arXiv 2505.06912).

Every step is written to an audit log with a hash chain: each entry contains the hash of the previous one. A later
change or removal of an entry therefore breaks the chain, unless only entries at the end are removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from taiji.core.artifacts import value_hash, write_text
from taiji.core.errors import ArtifactError, InputError
from taiji.reasoning.reviewers import Draft, Review, Reviewer
from taiji.reasoning.settings import ReviewSettings

Rewrite = Callable[[Draft, Sequence[str]], str]
"""Function ``(rejected draft, feedback) -> new rationale``. An empty text means no rewrite: the panel then decides."""
START = "0" * 64


@dataclass(frozen=True)
class Outcome:
    """Result of reviewing one record.

    Attributes:
        record: name of the record.
        status: ``accepted``, ``rejected`` (by the panel, or after the last strike without a panel) or ``waiting`` (for
            a person).
        rationale: the last draft.
        rounds: number of drafts.
        by: ``reviewers`` or ``panel``, whichever made the last decision; ``panel`` also if a record is rejected because
            there is no panel.
    """

    record: str
    status: Literal["accepted", "rejected", "waiting"]
    rationale: str
    rounds: int
    by: Literal["reviewers", "panel"]


class AuditLog:
    """Append-only log with a hash chain over its entries."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def reviews(self) -> dict[tuple[str, int, str, str], Review]:
        """Return all reviews in the log, by (record, round, text of the draft, reviewer)."""
        found = {}
        for text, entry in self.steps():
            if entry["step"] == "review":
                record, data = entry["record"], entry["data"]
                review = Review(data["reviewer"], data["kind"], data["scores"], data["feedback"])
                found[record, data["round"], text, data["reviewer"]] = review
        return found

    def steps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (text, entry) for every entry, where the text is the record's newest draft as of this entry."""
        texts: dict[str, str] = {}
        for entry in self.entries:
            if entry["step"] == "draft":
                texts[entry["record"]] = entry["data"]["rationale"]
            yield texts.get(entry["record"], ""), entry

    def add(self, record: str, step: str, **data: Any) -> None:
        """Append one step of a record."""
        before = self.entries[-1]["hash"] if self.entries else START
        entry = {"number": len(self.entries), "record": record, "step": step, "data": data, "before": before}
        self.entries.append({**entry, "hash": value_hash(entry)})

    def save(self, path: str | Path) -> None:
        """Write the log as JSONL."""
        write_text(
            path, "".join(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in self.entries)
        )

    @classmethod
    def load(cls, path: str | Path) -> AuditLog:
        """Read a log and verify its hash chain.

        Raises:
            ArtifactError: the file cannot be read, or an entry was changed, moved or removed.
        """
        log = cls()
        try:
            log.entries = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
        except (OSError, ValueError) as error:
            raise ArtifactError(
                "The audit log cannot be read.",
                where=str(path),
                found=str(error),
                fix="restore the file from a backup, or move the folder of the review away to start a new one",
            ) from error
        log.verify(str(path))
        return log

    def verify(self, where: str = "audit log") -> None:
        """Verify the hash chain. Raise :class:`ArtifactError` at the first entry that was changed, moved or removed.

        Entries removed from the end cannot be detected from the log alone: store the last hash elsewhere
        (`taiji review` prints it and writes it to its summary).
        """
        before = START
        for number, entry in enumerate(self.entries):
            body = {key: entry.get(key) for key in ("number", "record", "step", "data", "before")}
            if entry.get("number") != number or entry.get("before") != before or entry.get("hash") != value_hash(body):
                raise ArtifactError(
                    "The audit log was tampered with.",
                    where=f"{where}, entry {number}",
                    expected=f"an entry whose hash is valid and which follows the entry with the hash {before[:12]}…",
                    fix="restore the file from a backup, or move the folder of the review away to start a new one",
                )
            before = entry["hash"]

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return str(self.entries[-1]["hash"]) if self.entries else START


def accepted_by(reviews: Sequence[Review], settings: ReviewSettings) -> bool:
    """Return True if enough reviewers rate every axis at or above the bar."""
    return sum(review.lowest >= settings.bar for review in reviews) >= settings.agreement * len(reviews) - 1e-9


def run_review(
    drafts: Sequence[Draft],
    reviewers: Sequence[Reviewer],
    rewrite: Rewrite,
    settings: ReviewSettings,
    log: AuditLog,
    *,
    answer_check: Callable[[Draft], str] = lambda draft: "",
    panel: Sequence[Reviewer] = (),
) -> list[Outcome]:
    """Review every draft until it has an outcome.

    Args:
        drafts: first drafts, one per record.
        reviewers: reviewers of every draft, at least one.
        rewrite: function that makes the next draft from the rejected one and the feedback.
        settings: smallest score that passes, share of reviewers who must agree, and number of rejected drafts after
            which a panel decides.
        log: log to which every step is appended.
        answer_check: function that returns the problem of a draft's answer, empty if there is none. A draft with a
            problem gets a strike and is not reviewed.
        panel: reviewers who decide by simple majority after the last strike, or if there is no rewrite. If the panel is
            empty, the record is rejected.

    Returns:
        One outcome per draft, in order. A record that a person has not reviewed yet is ``waiting``. To continue later,
        call again with the same drafts and log: steps that the log already contains are not written again.
    """
    if not reviewers:
        raise InputError("A review needs at least one reviewer.", where="reviewers")
    outcomes: dict[str, Outcome] = {}
    open_drafts = list(drafts)
    written = {_key(text, entry["record"], entry["step"], entry["data"]) for text, entry in log.steps()}

    def note(draft: Draft, step: str, **data: Any) -> None:
        if _key(draft.rationale, draft.record, step, data) not in written:
            log.add(draft.record, step, **data)

    for draft in open_drafts:
        note(draft, "draft", round=draft.round, rationale=draft.rationale)
    while open_drafts:
        checked = [(draft, answer_check(draft)) for draft in open_drafts]
        sound = [draft for draft, problem in checked if not problem]
        given = dict(zip((d.record for d in sound), zip(*(reviewer.review(sound) for reviewer in reviewers))))
        following = []
        for draft, problem in checked:
            reviews = given.get(draft.record, ())
            if any(review is None for review in reviews):
                note(draft, "waiting", round=draft.round)
                outcomes[draft.record] = Outcome(draft.record, "waiting", draft.rationale, draft.round, "reviewers")
                continue
            kept = [review for review in reviews if review is not None]
            for review in kept:
                note(
                    draft,
                    "review",
                    round=draft.round,
                    reviewer=review.reviewer,
                    kind=review.kind,
                    scores=review.scores,
                    feedback=review.feedback,
                )
            if not problem and accepted_by(kept, settings):
                note(draft, "accepted", round=draft.round, by="reviewers")
                outcomes[draft.record] = Outcome(draft.record, "accepted", draft.rationale, draft.round, "reviewers")
                continue
            note(draft, "strike", round=draft.round, reason=problem or "reviews")
            feedback = [problem] if problem else [review.feedback for review in kept if review.feedback]
            text = rewrite(draft, feedback) if draft.round < settings.strikes else ""
            if not text:
                outcomes[draft.record] = _panel(draft, panel, settings, note)
                continue
            new = replace(draft, rationale=text, round=draft.round + 1)
            note(new, "draft", round=new.round, rationale=new.rationale)
            following.append(new)
        open_drafts = following
    return [outcomes[draft.record] for draft in drafts]


def _key(text: str, record: str, step: str, data: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key that identifies a step of the log, for a draft with this text."""
    said = sorted((data.get("scores") or {}).items()), data.get("feedback")  # a corrected review is a step of its own
    return text, record, step, data.get("round"), data.get("reviewer"), repr(said)


def _panel(draft: Draft, panel: Sequence[Reviewer], settings: ReviewSettings, note: Callable[..., None]) -> Outcome:
    """Return the panel's decision on a record that has used up its strikes or has no rewrite, and log its votes."""
    status: Literal["accepted", "rejected", "waiting"] = "rejected"
    votes = [reviewer.review([draft])[0] for reviewer in panel]
    if any(vote is None for vote in votes):
        status = "waiting"
    elif votes and sum(vote.lowest >= settings.bar for vote in votes if vote) > len(votes) / 2:
        status = "accepted"
    for vote in votes:
        if vote is not None:
            note(
                draft,
                "panel",
                reviewer=vote.reviewer,
                kind=vote.kind,
                scores=vote.scores,
                feedback=vote.feedback,
            )
    note(draft, status, round=draft.round, by="panel")
    return Outcome(draft.record, status, draft.rationale, draft.round, "panel")


def fleiss_kappa(ratings: np.ndarray) -> float:
    """Return Fleiss' kappa (1971), the agreement between raters beyond chance.

    The number of raters may differ between subjects: a subject's agreement is the share of its rater pairs that agree.

    Args:
        ratings: (N, k), number of raters who put subject i of N into category j of k; every row sums to at least 2.

    Returns:
        1 for full agreement, about 0 for chance, negative below chance. NaN if all ratings fall into one category,
        because the chance agreement is then 1 and κ is undefined.

    Raises:
        InputError: there are no subjects, or a subject has fewer than two raters.
    """
    ratings = np.asarray(ratings, dtype=np.float64)
    raters = ratings.sum(1)
    if ratings.ndim != 2 or not len(ratings) or raters.min() < 2:
        raise InputError(
            "Fleiss' kappa needs at least two raters for every subject.",
            found=f"row sums {sorted(set(raters.tolist()))[:5]}",
        )
    agreement = ((ratings * (ratings - 1)).sum(1) / (raters * (raters - 1))).mean()
    chance = float(((ratings.sum(0) / ratings.sum()) ** 2).sum())
    return float("nan") if chance == 1.0 else float((agreement - chance) / (1 - chance))


def agreement_of(log: AuditLog, bar: int) -> float:
    """Return Fleiss' kappa over the log's reviews, each counted as pass (lowest axis at or above the bar) or fail.

    Drafts with fewer than two reviews are ignored. The result is NaN if no draft has two.
    """
    counts: dict[tuple[str, int, str], list[int]] = {}
    for text, entry in log.steps():
        if entry["step"] == "review":
            passed = min(entry["data"]["scores"].values()) >= bar
            counts.setdefault((entry["record"], entry["data"]["round"], text), [0, 0])[int(passed)] += 1
    table = np.array([count for count in counts.values() if sum(count) >= 2])
    return fleiss_kappa(table) if len(table) else float("nan")


def expected_outcome(
    sensitivity: float, specificity: float, good: float, good_again: float, settings: ReviewSettings, reviewers: int = 1
) -> dict[str, float]:
    """Return the expected results of the review loop in closed form.

    The formula assumes that there is no panel and that all reviewers must agree.

    Args:
        sensitivity: P(a reviewer accepts | the draft is good).
        specificity: P(a reviewer rejects | the draft is bad); reviewers err independently.
        good: P(the first draft is good).
        good_again: P(a rewritten draft is good), independent of earlier drafts.
        settings: settings with ``strikes``, the number of rejected drafts after which a record is rejected.
        reviewers: number of reviewers.

    Returns:
        ``accepted`` (share of records), ``precision`` (share of the accepted records that are good), ``rounds`` (mean
        number of reviewed drafts, at most ``strikes``).
    """
    hit, slip = sensitivity**reviewers, (1 - specificity) ** reviewers
    first, later = good * hit + (1 - good) * slip, good_again * hit + (1 - good_again) * slip
    reach = [1.0] + [(1 - first) * (1 - later) ** t for t in range(settings.strikes - 1)]  # P(round 1), P(round 2), …
    accepted = first + later * sum(reach[1:])
    right = good * hit + good_again * hit * sum(reach[1:])
    return {"accepted": accepted, "precision": right / accepted if accepted else float("nan"), "rounds": sum(reach)}
