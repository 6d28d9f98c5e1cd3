"""One shop from its seed to its outcome, as a user of `taiji init` meets it."""

from __future__ import annotations

import itertools
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tests.shops.choices import PLAIN, draw, fitted, unusual
from tests.shops.comparing import Difference, differences
from tests.shops.defects import DEFECTS
from tests.shops.tables import Shop, build
from tests.shops.truth import make_truth
from tests.shops.value_forms import LABELS, OPEN_ACTIONS
from tests.shops.writers import Written, with_tricky_titles, write

from taiji.core.errors import TaijiError
from taiji.data.discovery.parts import Question
from taiji.pipeline.initialise import Initialised, initialise

RIGHT, ASKED, TOLD = "right", "right after a question", "difference that is said"
QUESTION, ERROR, REFUSED = "question without a right choice", "defect named in an error", "form refused by name"
UNPLACED = "ERROR WITHOUT A PLACE"
SILENT, TRACEBACK = "SILENT DIFFERENCE", "TRACEBACK"
OUTCOMES = (RIGHT, ASKED, TOLD, ERROR, QUESTION, REFUSED, UNPLACED, SILENT, TRACEBACK)
BAD = (UNPLACED, SILENT, TRACEBACK)
TRIES = 8
"""Ways of answering open questions that are tried for one shop."""


@dataclass(frozen=True)
class Outcome:
    """What came of a shop.

    Attributes:
        seed, choices: of the shop.
        kind: one of :data:`OUTCOMES`.
        detail: the error, question, differences or traceback.
        asked: keys that the reader asked for.
    """

    seed: int
    choices: Mapping[str, str]
    kind: str
    detail: str
    asked: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = f"\n  asked: {', '.join(self.asked)}" if self.asked else ""
        return f"seed {self.seed}: {self.kind}\n  {unusual(self.choices)}{asked}\n  {self.detail}"


def make_shop(seed: int, choices: Mapping[str, str]) -> Shop:
    """Make a shop in the given forms, its defect planted; a defect without a place in it is left out."""
    truth = make_truth(seed, choices["words"], first_days=choices["time"] == "day or month")
    shop = build(choices, truth, seed)
    planted = choices["defect"] == "none" or DEFECTS[choices["defect"]](shop)
    if not planted:
        shop = build({**choices, "defect": "none"}, truth, seed)
    return with_tricky_titles(shop)


def play(seed: int, choices: Mapping[str, str] | None = None, folder: Path | None = None) -> Outcome:
    """Write a shop, let `taiji init` read it, and compare.

    Args:
        seed: of truth and choices.
        choices: instead of those that the seed draws.
        folder: where the files are kept; a temporary one otherwise.
    """
    shop = make_shop(seed, draw(seed) if choices is None else fitted(dict(choices)))
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary) / "shop"
        written = write(shop, place)
        to = Path(temporary) / "configuration"
        to.mkdir()
        best: Outcome | None = None
        answers: dict[str, int] = {}
        for _ in range(TRIES):
            person = Person(shop, written, answers)
            outcome = _once(shop, written, place, to, person, seed)
            best = outcome if best is None or OUTCOMES.index(outcome.kind) < OUTCOMES.index(best.kind) else best
            following = person.following()
            if outcome.kind == TRACEBACK:
                return outcome
            if best.kind in (RIGHT, ASKED) or following is None:
                break
            answers = following
    assert best is not None
    return best


def _once(shop: Shop, written: Written, place: Path, to: Path, person: Person, seed: int) -> Outcome:
    def outcome(kind: str, detail: str) -> Outcome:
        return Outcome(seed, shop.choices, kind, detail, tuple(person.asked))

    try:
        made = initialise(place, to, "shop", {}, person.answer, force=True)
    except TaijiError as error:
        return outcome(_error(shop, written, error, seed), str(error))
    except Exception:
        return outcome(TRACEBACK, traceback.format_exc(limit=-6))
    found = differences(shop, made)
    if person.guessed and any(not difference.told for difference in found):
        return outcome(QUESTION, "; ".join(map(_line, found)))  # a person would have seen that no choice is right
    if not found:
        return outcome(ASKED if person.asked else _assumed(shop, made), "")
    kind = TOLD if all(difference.told for difference in found) else SILENT
    return outcome(kind, "; ".join(map(_line, found)))


def _line(difference: Difference) -> str:
    return f"{difference.place}{' (said)' if difference.told else ''}: {difference.detail}"


def _assumed(shop: Shop, made: Initialised) -> str:
    """What nobody can know and was read as written by chance must have been announced."""
    signal = shop.choices["signal"]
    label = signal in ("click", "click, purchase") and LABELS[shop.choices["label"]].open
    action = signal == "action" and shop.choices["actions"] in OPEN_ACTIONS
    if shop.time.open_order or label or action:
        roles = ["time"] if shop.time.open_order else ["click", "action"]
        names = [column.name.strip() for role in roles if (column := shop.log.column(role))]
        if not any(name in doubt for doubt in made.doubts for name in names):
            return SILENT
    return RIGHT


def _error(shop: Shop, written: Written, error: TaijiError, seed: int) -> str:
    """Return the kind of an error: about the planted defect and its place, about a form, or about nothing one can
    find."""
    text = str(error)
    files = {Path(name).name for name in written.all} | set(shop.beside)
    several = f"{shop.log.name}_*" if shop.choices["layout"] == "parts beside" else Path(written.log).name
    placed = any(name in text for name in files) or several in text
    if not placed or shop.choices["defect"] == "none":
        return REFUSED if placed else UNPLACED
    sound = play(seed, {**shop.choices, "defect": "none"})
    if sound.kind in (REFUSED, UNPLACED):
        return REFUSED
    return ERROR if not shop.place or any(word in text for word in shop.place) else UNPLACED


class Person:
    """Answers questions by the truth; where the truth gives no answer, the choices are tried in turn."""

    def __init__(self, shop: Shop, written: Written, answers: Mapping[str, int]) -> None:
        self.shop, self.written, self.answers = shop, written, dict(answers)
        self.asked: list[str] = []
        self.guessed: dict[str, int] = {}

    def answer(self, question: Question) -> str:
        """Return the right choice."""
        self.asked.append(question.key)
        if self.asked.count(question.key) > 3:
            raise RuntimeError(f"{question.key} is asked again and again: {question}")
        values = [str(choice.value) for choice in question.choices]
        wanted = self._wanted(question.key)
        if question.key.endswith("timestamp.format"):
            wanted = [value for value in values if self._reads(value)]
        known = [value for value in values if value.strip() in [text.strip() for text in wanted]]
        if known:
            return known[0]
        if wanted and not question.key.endswith("format"):
            return wanted[0]  # not offered: said with --set
        if not values:
            raise RuntimeError(f"{question.key} is asked without a choice")
        self.guessed[question.key] = len(values)
        return values[min(self.answers.get(question.key, 0), len(values) - 1)]

    def following(self) -> dict[str, int] | None:
        """Return the next way of answering what the truth does not answer; None when all were tried."""
        keys = sorted(self.guessed)
        ways = list(itertools.product(*(range(self.guessed[key]) for key in keys)))
        now = tuple(self.answers.get(key, 0) for key in keys)
        place = ways.index(now) + 1 if now in ways else len(ways)
        return dict(zip(keys, ways[place])) if place < len(ways) and keys else None

    def _wanted(self, key: str) -> list[str]:
        shop, written = self.shop, self.written
        section, _, part = key.partition(".")
        if part == "file":
            name = {"events": written.log, "items": written.items, "users": written.users}[section]
            return [name] if name else []
        if key == "unusable":
            return ["drop"]
        table = {"events": shop.log, "items": shop.items or shop.log, "users": shop.users or shop.log}.get(section)
        roles = {"user_id": "user", "item_id": "item", "title": "title", "price": "price", "category_l1": "level1"}
        role = roles.get(part)
        if part == "timestamp":
            role = "time" if shop.log.column("time") else "date"
        column = table.column(role) if table and role else None
        if table is None or column is None:
            return []
        extra = int(shop.choices["header"] == "index column")
        return [column.name, f"column_{table.columns.index(column) + 1 + extra}"]

    def _reads(self, pattern: str) -> bool:
        """Tell whether a pattern reads the written times as the truth has them."""
        shop = self.shop
        column = shop.log.column("time") or shop.log.column("date")
        assert column is not None
        texts = [text or "" for text in column.texts]
        if shop.log.column("clock"):
            texts = [f"{day} {clock}" for day, clock in zip(texts, shop.log.column("clock").texts)]  # type: ignore[union-attr]
        try:
            times = pl.Series(texts).str.to_datetime(pattern or None, strict=False, time_unit="us", time_zone=None)
        except pl.exceptions.PolarsError:
            return False
        right = [shop.time.kept(shop.truth.events[row].time) for row in shop.log.rows]
        return sum(a == b for a, b in zip(times.cast(pl.Int64).to_list(), right)) >= 0.9 * len(right)


def shrunk(outcome: Outcome) -> Outcome:
    """Make choices plain, one after the other, as long as the outcome's kind stays: what is left is the cause."""
    best = outcome
    for axis, plain in PLAIN.items():
        if best.choices[axis] != plain:
            tried = play(best.seed, {**best.choices, axis: plain})
            if tried.kind == best.kind:
                best = tried
    return best
