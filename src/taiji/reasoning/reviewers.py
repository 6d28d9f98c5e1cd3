"""Reviewers of drafts, on five axes from 1 (bad) to 5 (good).

A reviewer (:class:`Reviewer`) is a set of rules, a language model, or a person who fills in a JSONL file. Each review
names the kind of its reviewer, so that a model's review is never taken for an expert's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from taiji.core.artifacts import make_folder, write_text
from taiji.core.errors import InputError, TaijiError
from taiji.core.foreign_json import parsed
from taiji.reasoning.guards import find_set_mentions, words

if TYPE_CHECKING:
    from taiji.language.causal_lm import LanguageModel

AXES = ("correctness", "structure", "sufficiency", "terminology", "usefulness")
QUESTIONS = {
    "correctness": "Does the reasoning follow from the list, without naming the answer?",
    "structure": "Is the reasoning clear and in good order?",
    "sufficiency": "Does the reasoning say enough to foresee the answer?",
    "terminology": "Does the reasoning use the right words for the categories?",
    "usefulness": "Does the reasoning help to foresee the answer?",
}
Kind = Literal["rule", "model", "person"]


@dataclass(frozen=True)
class Draft:
    """Draft of a rationale under review.

    Attributes:
        record: unique name of the record (the rationale with all its drafts).
        context: input of the writer (the student's prompt).
        answer: text of the true answer.
        title: title of the target.
        levels: category levels of the target.
        rationale: text of the draft.
        round: 1 for the first draft.
        further: title and category levels of the other items, if the answer is a set.
    """

    record: str
    context: str
    answer: str
    title: str
    levels: tuple[str, ...]
    rationale: str
    round: int = 1
    further: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Review:
    """Judgement of one draft by one reviewer.

    Attributes:
        reviewer: name of the reviewer.
        kind: ``rule``, ``model`` or ``person``.
        scores: score from 1 to 5 for every axis of :data:`AXES`.
        feedback: what should be improved in the next draft.
    """

    reviewer: str
    kind: Kind
    scores: dict[str, int]
    feedback: str = ""

    def __post_init__(self) -> None:
        if set(self.scores) != set(AXES) or not all(isinstance(s, int) and 1 <= s <= 5 for s in self.scores.values()):
            raise InputError(
                "A review is incomplete.",
                where=self.reviewer,
                expected=f"1 to 5 on {', '.join(AXES)}",
                found=str(self.scores),
            )

    @property
    def lowest(self) -> int:
        """Return the lowest score over the axes."""
        return min(self.scores.values())


class Reviewer(Protocol):
    """Reviewer of drafts."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def review(self, drafts: Sequence[Draft]) -> list[Review | None]:
        """Return one review per draft, in order; None for a draft that still waits for a person."""
        ...


@dataclass(frozen=True)
class RuleReviewer:
    """Rule-based reviewer. It checks that a draft does not name the answer, consists of whole sentences without
    repetition, is neither too short nor too long, names the target's category, and uses words of the history."""

    name: str = "rules"
    kind: Kind = field(default="rule", init=False)

    def review(self, drafts: Sequence[Draft]) -> list[Review | None]:
        """See :class:`Reviewer`."""
        return [self._judge(draft) for draft in drafts]

    def _judge(self, draft: Draft) -> Review:
        found = find_set_mentions(draft.rationale, [(draft.title, draft.levels), *draft.further], draft.context)
        history = [line for line in draft.context.splitlines() if line.startswith("- ")]
        said, shown = words(draft.rationale), set(words(" ".join(history) or draft.context))
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", draft.rationale.strip()) if s]
        whole = bool(sentences) and re.search(r"[.!?][\"')]*$", sentences[-1]) is not None
        content = [w for w in said if len(w) > 3]
        grounded = sum(w in shown for w in content) / len(content) if content else 0.0
        repeated = 1 - len(set(said)) / len(said) if said else 1.0
        categories = {w for level in draft.levels for w in words(level)}
        notes = {
            "correctness": (
                1 if found.title or found.forbidden else 2 if any(found.levels[2:]) else 5,
                "do not name the answer",
            ),
            "structure": (
                (5 if whole else 3) - (2 if repeated > 0.5 else 0),
                "write whole sentences without repetition",
            ),
            "sufficiency": (
                1 if len(said) < 6 else 3 if len(said) < 12 else 5 if len(said) <= 150 else 2,
                "say more" if len(said) < 12 else "say it in at most 150 words",
            ),
            "terminology": (5 if categories & set(said) else 3 if content else 1, "use the categories' names"),
            "usefulness": (1 if grounded == 0 else 3 if grounded < 0.2 else 5, "refer to what the list shows"),
        }
        return Review(
            self.name,
            self.kind,
            {axis: max(1, notes[axis][0]) for axis in AXES},
            "; ".join(note for score, note in notes.values() if score < 4),
        )


class ModelReviewer:
    """Language-model reviewer. The score of an axis is the most likely digit, so every review is well-formed."""

    kind: Kind = "model"

    def __init__(self, lm: LanguageModel, batch_size: int = 12) -> None:
        self.lm, self.batch_size = lm, batch_size
        self.name = f"model:{Path(lm.name).name}"

    def review(self, drafts: Sequence[Draft]) -> list[Review | None]:
        """See :class:`Reviewer`."""
        from taiji.language.chat import render
        from taiji.language.score import completion_logprobs

        prompts = [
            render(self.lm, [{"role": "user", "content": self._question(d, axis)}], "Score:")
            for d in drafts
            for axis in AXES
        ]
        digits = [f" {score}" for score in range(1, 6)]
        values = completion_logprobs(
            self.lm,
            [p for p in prompts for _ in digits],
            digits * len(prompts),
            self.batch_size,
            f"Reviewing ({self.name})",
        )
        best = [max(range(5), key=lambda d: (float(values[5 * row + d].sum()), -d)) + 1 for row in range(len(prompts))]
        reviews: list[Review | None] = []
        for number in range(len(drafts)):
            scores = dict(zip(AXES, best[number * len(AXES) : (number + 1) * len(AXES)]))
            weak = [axis for axis, score in scores.items() if score < 4]
            reviews.append(Review(self.name, self.kind, scores, f"improve {', '.join(weak)}" if weak else ""))
        return reviews

    def _question(self, draft: Draft, axis: str) -> str:
        return f"Answer: {draft.answer}\nReasoning: {draft.rationale}\n{QUESTIONS[axis]} Give a score from 1 (no) to 5 (yes)."


class Remembered:
    """Wrapper of a reviewer that reuses the reviewer's earlier reviews of the same draft."""

    def __init__(self, reviewer: Reviewer, before: Mapping[tuple[str, int, str, str], Review]) -> None:
        self.reviewer, self.before = reviewer, before
        self.name, self.kind = reviewer.name, reviewer.kind

    def review(self, drafts: Sequence[Draft]) -> list[Review | None]:
        """See :class:`Reviewer`."""
        known = [self.before.get((draft.record, draft.round, draft.rationale, self.name)) for draft in drafts]
        fresh = [draft for draft, review in zip(drafts, known) if review is None]
        given = iter(self.reviewer.review(fresh) if fresh else [])
        return [review or next(given) for review in known]


class PersonReviewer:
    """Reviewer who is a person. Drafts wait in ``<folder>/<name>.todo.jsonl``; completed lines are read from
    ``<folder>/<name>.done.jsonl``.

    To review, copy a line from the first file to the second and fill in the five scores and, optionally, feedback and a
    better text (``rewrite``), or let :mod:`taiji.reasoning.review_page` do so.
    """

    kind: Kind = "person"

    def __init__(self, name: str, folder: str | Path) -> None:
        if not re.fullmatch(r"[\w.@-]+", name) or name.startswith("."):
            raise InputError(
                "A reviewer's name must be usable as a file name.",
                where=name,
                expected="letters, digits, _ . @ -, not beginning with a dot",
            )
        self.name, self.folder = name, Path(folder)

    @property
    def file(self) -> Path:
        """File of the filled-in sheets."""
        return self.folder / f"{self.name}.done.jsonl"

    def review(self, drafts: Sequence[Draft]) -> list[Review | None]:
        """See :class:`Reviewer`."""
        done = self._done()
        return [done.get(_sheet_of(draft), (None, ""))[0] for draft in drafts]

    def ask(self, drafts: Sequence[Draft]) -> int:
        """Write a sheet for each draft without a review to the todo file, and return the number of sheets."""
        waiting = [draft for draft, review in zip(drafts, self.review(drafts)) if review is None]
        empty = {"scores": dict.fromkeys(AXES), "feedback": "", "rewrite": ""}
        lines = [json.dumps({**self._sheet(d), **empty}, ensure_ascii=False) for d in waiting]
        write_text(self.folder / f"{self.name}.todo.jsonl", "".join(line + "\n" for line in lines))
        return len(waiting)

    def fill_in(self, draft: Draft, review: Review, rewrite: str = "") -> None:
        """Append a filled-in sheet. When this method returns, the sheet is on disk."""
        sheet = {**self._sheet(draft), "scores": review.scores, "feedback": review.feedback, "rewrite": rewrite}
        make_folder(self.folder)
        before = self.file.read_bytes()[-1:] if self.file.exists() else b""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(("\n" if before not in (b"", b"\n") else "") + json.dumps(sheet, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, draft: Draft, feedback: Sequence[str] = ()) -> str:
        """Return the person's new text for a draft; empty if there is none.

        This method can serve as a :data:`taiji.reasoning.curation.Rewrite`.
        """
        text = self._done().get(_sheet_of(draft), (None, ""))[1]
        return "" if text == draft.rationale else text

    @staticmethod
    def _sheet(draft: Draft) -> dict[str, object]:
        return {
            "record": draft.record,
            "round": draft.round,
            "context": draft.context,
            "answer": draft.answer,
            "rationale": draft.rationale,
        }

    def _done(self) -> dict[tuple[str, int, str], tuple[Review | None, str]]:
        reviews: dict[tuple[str, int, str], tuple[Review | None, str]] = {}
        lines = self.file.read_text(encoding="utf-8").split("\n") if self.file.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                sheet = parsed(line)
                review = Review(self.name, self.kind, sheet["scores"], str(sheet.get("feedback", "")))
                reviews[sheet["record"], sheet["round"], sheet["rationale"]] = (
                    review,
                    str(sheet.get("rewrite") or "").strip(),
                )
            except (ValueError, KeyError, TypeError, AttributeError, TaijiError) as error:
                raise InputError(
                    "A filled-in review cannot be read.",
                    where=f"{self.file}, line {number}",
                    expected=f'a line of the todo file with "scores": 1 to 5 on {", ".join(AXES)}',
                    found=str(error),
                    fix="correct or delete the line",
                ) from error
        return reviews


def _sheet_of(draft: Draft) -> tuple[str, int, str]:
    return draft.record, draft.round, draft.rationale
