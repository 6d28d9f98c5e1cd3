"""One reviewer's comparisons of texts written about items: two texts about the same item are shown side by side, and
the reviewer chooses the better one or neither.

Each judgement is stored at once in ``<name>.jsonl``, with the two texts, the reviewer and the time. The file is
replaced as a whole, so that a reader never sees an incomplete one. :func:`judged_pairs` converts the judgements of all
reviewers into pairs for the reward model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations, zip_longest
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
import polars as pl

from taiji.copywriting.copy_pairs import PAIRS
from taiji.core.artifacts import value_hash, write_text
from taiji.core.errors import ArtifactError, InputError
from taiji.core.locks import exclusive
from taiji.reasoning.review_session import NotWaiting

Choice = Literal["left", "right", "even"]
NAME = re.compile(r"[^\W_][\w.@-]*")


@dataclass(frozen=True)
class Comparison:
    """Two copies for an item, as shown to a reviewer.

    Attributes:
        item_id: the item.
        left, right: its two copies.
        left_category, right_category: categories of the copies.
    """

    item_id: str
    left: str
    right: str
    left_category: str
    right_category: str

    @property
    def key(self) -> str:
        """Key that does not depend on which side each copy is on."""
        return value_hash([self.item_id, *sorted((self.left, self.right))])[:16]


@dataclass(frozen=True)
class Judgement(Comparison):
    """Comparison with the judgement of one reviewer.

    Attributes:
        choice: the side of the better copy (``left``, ``right``), or ``even``.
        by: name of the reviewer.
        at: time, ISO 8601 in UTC.
    """

    choice: Choice
    by: str
    at: str


def comparisons(copies: pl.DataFrame, count: int, seed: int) -> list[Comparison]:
    """Return pairs of usable copies.

    Every item gives its first pair before any item gives a second one. A larger ``count`` only appends pairs.

    Args:
        copies: see :data:`taiji.copywriting.copy_table.SCHEMA`.
        count: largest number of pairs.
        seed: random seed of order, pairs and sides, which is the same for all reviewers.

    Raises:
        InputError: no item has two usable copies.
    """
    rng, by_item = np.random.default_rng([seed, 43]), []
    usable = copies.filter(pl.col("copy").is_not_null()).unique(["item_id", "copy"], maintain_order=True)
    for (item,), rows in usable.group_by("item_id", maintain_order=True):
        pairs = list(combinations(rows.select("copy", "category").rows(), 2))
        drawn = [pairs[place] for place in rng.permutation(len(pairs))]
        sides = [pair if rng.random() < 0.5 else pair[::-1] for pair in drawn]
        by_item.append([Comparison(str(item), one[0], two[0], one[1], two[1]) for one, two in sides])
    mixed = [by_item[place] for place in rng.permutation(len(by_item))]
    found = [one for turn in zip_longest(*mixed) for one in turn if one is not None]
    if not found:
        raise InputError(
            "There are no copies to compare.",
            where="copies",
            expected="an item with two copies that passed the checks",
            found=f"{len(usable)} such copies of {usable['item_id'].n_unique()} items",
            fix="write more candidates (copywriting.candidates, copywriting.categories)",
        )
    return found[:count]


class CopyReview:
    """Review session over comparisons. Use it as a context manager, which locks the reviewer's file.

    Args:
        asked: comparisons to judge.
        name: name of the reviewer.
        folder: folder in which judgements are stored.

    Raises:
        InputError: the name cannot be used as a file name.
        ResourceError: this reviewer has another session open.
    """

    def __init__(self, asked: Sequence[Comparison], name: str, folder: str | Path) -> None:
        if not NAME.fullmatch(name):
            raise InputError(
                "A reviewer's name must be usable as a file name.",
                where="reviewer",
                expected="a letter or digit, then letters, digits, _ . @ -",
                found=name,
            )
        self.asked = {one.key: one for one in asked}
        self.name, self.folder = name, Path(folder)
        self.file = self.folder / f"{name}.jsonl"
        self.judged: dict[str, Judgement] = {}

    def __enter__(self) -> CopyReview:
        self._lock = exclusive(
            self.folder / f".{self.name}.lock",
            "Another review session of this reviewer is open.",
            where=self.file,
            fix="close it first, or use another name with --as; its judgements are kept",
        )
        try:
            self.judged = {one.key: one for one in read_judgements(self.file)}
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def waiting(self) -> list[Comparison]:
        """Return the comparisons that this reviewer has not judged yet, in order."""
        return [one for key, one in self.asked.items() if key not in self.judged]

    def submit(self, key: str, choice: str) -> Judgement:
        """Store and return this reviewer's judgement of a comparison.

        Raises:
            NotWaiting: the comparison was already judged, or is not part of this session.
            InputError: the choice is not one of :data:`Choice`.
        """
        if key in self.judged or key not in self.asked:
            raise NotWaiting(
                "This comparison is no longer open for review.", where=key, fix="continue with the next one"
            )
        if choice not in get_args(Choice):
            raise InputError(
                "The choice is invalid.", where=key, expected=f"one of {', '.join(get_args(Choice))}", found=choice
            )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        made = Judgement(**asdict(self.asked[key]), choice=choice, by=self.name, at=at)  # type: ignore[arg-type]
        self._keep({**self.judged, key: made})
        return made

    def undo(self) -> None:
        """Undo this reviewer's last judgement, if it belongs to a comparison of this session.

        Raises:
            NotWaiting: there is no such judgement.
        """
        if next(reversed(self.judged), None) not in self.asked:
            raise NotWaiting("There is no judgement to undo.", where=str(self.file))
        self._keep(dict(list(self.judged.items())[:-1]))

    def _keep(self, judged: dict[str, Judgement]) -> None:
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in judged.values()]
        write_text(self.file, "".join(f"{line}\n" for line in lines))
        self.judged = judged

    def progress(self) -> dict[str, int]:
        """Return counts for this session: ``total``, ``judged`` and ``waiting``."""
        waiting = len(self.waiting())
        return {"total": len(self.asked), "judged": len(self.asked) - waiting, "waiting": waiting}


def read_judgements(file: Path) -> list[Judgement]:
    """Return the judgements in a file, in order; empty if the file does not exist.

    Raises:
        ArtifactError: a line is not a judgement.
    """
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            one = Judgement(**json.loads(line))
            if one.choice not in get_args(Choice):
                raise ValueError(f"choice {one.choice!r}")
            if other := [f"{name} {value!r}" for name, value in asdict(one).items() if not isinstance(value, str)]:
                raise ValueError(f"values that are not text: {', '.join(other)}")
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                "A line is not a judgement of copies.",
                where=f"{file}, line {number}",
                expected=f"JSON with {', '.join(Judgement.__dataclass_fields__)}",
                found=str(error),
                fix="remove the line, or restore the file",
            ) from error
        found.append(one)
    return found


def judged_pairs(folder: str | Path, least_z: float = 0.0) -> pl.DataFrame:
    """Count the votes of all reviewers in a folder, and return a pair for each comparison in which one copy got more
    votes.

    A judgement ``even`` is a vote for neither copy. ``sends`` is the total number of votes for the two copies, and
    ``z`` the statistic of the sign test on these votes.

    Args:
        folder: folder with one file per reviewer.
        least_z: smallest ``z`` of a pair.

    Returns:
        columns :data:`taiji.copywriting.copy_pairs.PAIRS`, in order of first occurrence. The files are read in the
        order of the reviewers' names.
    """
    votes: dict[str, Counter[str]] = {}
    shown: dict[str, Comparison] = {}
    for one in _all_judgements(folder):
        counts = votes.setdefault(one.key, Counter({one.left: 0, one.right: 0}))
        shown[one.key] = one
        if one.choice != "even":
            counts[one.left if one.choice == "left" else one.right] += 1
    rows = []
    for key, counts in votes.items():
        (winner, more), (loser, fewer) = counts.most_common(2)
        pair = shown[key]
        category = {pair.left: pair.left_category, pair.right: pair.right_category}
        z = float((more - fewer) / np.sqrt(max(more + fewer, 1)))
        if z > 0 and z >= least_z:
            rows.append((pair.item_id, winner, loser, category[winner], category[loser], more + fewer, z))
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def agreement(folder: str | Path) -> tuple[int, int]:
    """Count the comparisons that several reviewers judged.

    Returns:
        the number of such comparisons in which all judgements agree, and the number of all such comparisons.
    """
    chosen: dict[str, list[str]] = {}
    for one in _all_judgements(folder):
        chosen.setdefault(one.key, []).append({"left": one.left, "right": one.right, "even": ""}[one.choice])
    several = [texts for texts in chosen.values() if len(texts) > 1]
    return sum(len(set(texts)) == 1 for texts in several), len(several)


def _all_judgements(folder: str | Path) -> Iterator[Judgement]:
    """Yield the judgements of all reviewers, in the order of the reviewers' names."""
    for file in sorted(Path(folder).glob("*.jsonl")):
        yield from read_judgements(file)
