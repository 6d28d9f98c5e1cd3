"""The one format of a completion: write it, and read whatever a language model made of it.

<think>rationale</think><answer>Item title: …; Category L1: …; L2: …; L3: …</answer>

A set of intents has several of them between the tags, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from functools import lru_cache

THINK = "<think>"
LONGEST = 400
"""Characters of an answer; beyond it the model rambles."""
DEPTH = 3
"""Category levels that are looked for by default."""
DEEPEST = 9
"""Category levels that the format can name."""
_TAG = re.compile(r"<\s*+(/?)\s*+(think|answer)\s*+>", re.IGNORECASE)
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text|image))>|\[/?(?:INST|SYSTEM_PROMPT)\]"
)
"""Special tokens of known model families: in a text they would be read as turns and ends."""


_TITLE = re.compile(
    r"(?P<label>(?<!\w)item title\s*+:)|(?:^|[;|,\n]|(?<=\s)[-*•]|(?<!\S)\d{1,2}[.)])\s{0,99}+(?P<short>title\s*+:)",
    re.IGNORECASE | re.MULTILINE,
)
"""The beginning of an intent: its label anywhere, or the short one at the start of a line or behind a separator, a bullet or a number."""
_BULLET = re.compile(r"^\s*(?:[-*•]+|\d{1,2}[.)])?\s*")
_REST = " \t\n;|,-*•"
"""Separators and bullets that stand between intents and belong to none."""
_NUMBER = {True: re.compile(r"\n\s{0,99}+\d{1,2}[.)]\s*+$"), False: re.compile(r"\s\d{1,2}[.)]\s*$")}
"""The number of the intent that follows: at the start of a line where there are several lines, else behind a space."""


@dataclass(frozen=True)
class Intent:
    """One of the things that an answer foresees.

    Attributes:
        title: its title.
        levels: its category levels, as many as were looked for; a level that is not given is empty.
        start, end: its characters in the text that was read.
    """

    title: str
    levels: tuple[str, ...]
    start: int = attribute(default=0, compare=False)
    end: int = attribute(default=0, compare=False)

    @property
    def text(self) -> str:
        """The intent in the form of an item's text, whatever form it was written in."""
        return format_answer(self.title, self.levels)


@dataclass(frozen=True)
class Answer:
    """Parts of a completion.

    Attributes:
        rationale: the text inside `<think>`, without tags.
        text: the text inside `<answer>`, white space collapsed; empty when there is none.
        title: its title, empty when there is none.
        levels: its category levels, as many as were looked for; a level that is not given is empty.
        well_formed: the format is right, so title and levels may be believed.
        problem: why not, else empty.
        intents: what it names, in the order of the text, whatever its form; at most as many as were asked for, and none that the end cut.
    """

    rationale: str
    text: str
    title: str
    levels: tuple[str, ...]
    well_formed: bool
    problem: str
    intents: tuple[Intent, ...] = ()

    @property
    def said(self) -> str:
        """Rationale and answer as the one text that is embedded for features, whatever its form; empty where nothing was said."""
        return f"{self.rationale} {self.text}".strip()


def clean(text: str) -> str:
    """One line without tags and end-of-text marks."""
    return " ".join(_SPECIAL.sub(" ", _TAG.sub(" ", text)).split())


def format_answer(title: str, levels: tuple[str | None, ...] | list[str | None]) -> str:
    """The text inside `<answer>`; levels that are missing are left out.

    Semicolons and angle brackets in names would read as format, so they are replaced.
    """
    parts = [f"Item title: {field(title)}"]
    for number, level in enumerate(levels, start=1):
        if level is not None and field(level):
            parts.append(f"{'Category ' if number == 1 else ''}L{number}: {field(level)}")
    return "; ".join(parts)


def field(text: str) -> str:
    """A name that cannot be mistaken for a part of the format."""
    return " ".join(_SPECIAL.sub(" ", text).replace(";", ",").replace("<", "(").replace(">", ")").split())


def format_completion(rationale: str, answer: str) -> str:
    """The completion that a student learns: the rationale (which may be empty) and the answer's text."""
    return f"<think>{clean(rationale)}</think><answer>{answer}</answer>"


def format_set(lines: Sequence[str]) -> str:
    """The text inside `<answer>` of a set of intents, each of :func:`format_answer`."""
    return "\n".join(lines)


def answer_span(rationale: str, answer: str) -> tuple[int, int]:
    """Characters of the answer's text within :func:`format_completion`."""
    start = len(f"<think>{clean(rationale)}</think><answer>")
    return start, start + len(answer)


def answer_form(depth: int, most: int = 1) -> str:
    """Return the form of an answer with so many category levels, for a prompt: ``Item title: ...; Category L1: ...``, two lines of it for a set."""
    return format_set([format_answer("...", ["..."] * depth)] * min(most, 2))


@lru_cache(maxsize=DEEPEST)
def _label(depth: int) -> re.Pattern[str]:
    levels = f"|(?:category )?l[1-{depth}]" if depth else ""
    return re.compile(rf"(?:^|;)\s*(item title|title{levels})\s*:", re.IGNORECASE)


def field_spans(answer: str, depth: int = DEPTH) -> list[tuple[int, int]]:
    """Return characters of the values in an answer's text: title, L1, L2, … down to ``depth``; (0, 0) for a missing one."""
    depth = min(depth, DEEPEST)
    spans = [(0, 0)] * (1 + depth)
    found = list(_label(depth).finditer(answer))
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(answer)
        start = match.end()
        while start < end and answer[start].isspace():
            start += 1
        while end > start and answer[end - 1].isspace():
            end -= 1
        name = match.group(1).lower()
        slot = 0 if name.endswith("title") else int(name[-1])
        if spans[slot] == (0, 0) and end > start:
            spans[slot] = (start, end)
    return spans


def line_spans(answer: str, depth: int = DEPTH) -> list[list[tuple[int, int]]]:
    """Return :func:`field_spans` of each line of an answer's text: of each intent of a set."""
    spans, start = [], 0
    for line in answer.split("\n"):
        spans.append([(start + a, start + b) if b > a else (0, 0) for a, b in field_spans(line, depth)])
        start += len(line) + 1
    return spans


def read_intents(content: str, depth: int = DEPTH) -> list[Intent]:
    """Read the intents in the text of an answer, however they are set apart: lines, numbers, bullets, `|`, or the next title.

    Where no title has its label, each line (or part between `|`) is an intent of its own: a title, then levels behind semicolons.
    """
    starts = list(_TITLE.finditer(content))
    begins = [max(match.start("label"), match.start("short")) for match in starts]
    ends = [match.start() for match in starts[1:]] + [len(content)]
    intents = []
    for begin, end in zip(begins, ends):
        piece = (
            content[begin:end] if end == len(content) else _NUMBER["\n" in content.strip()].sub("", content[begin:end])
        )
        text = clean(piece).rstrip(_REST)
        title, *levels = (text[a:b].rstrip(_REST) for a, b in field_spans(text, depth))
        intents.append(Intent(title, tuple(levels), begin, end))
    if not starts:
        for line in re.finditer(r"[^\n|]+", content):
            title, *levels = (part.strip() for part in clean(_BULLET.sub("", line.group())).split(";"))
            intents.append(Intent(title, tuple((levels + [""] * depth)[:depth]), *line.span()))
    return [intent for intent in intents if any(c.isalnum() for c in intent.title)]


def parse(text: str, depth: int = DEPTH, most: int = 1) -> Answer:
    """Read a completion and ``depth`` category levels of its answer; never raises.

    The opening `<think>` may be missing (it is usually prefilled), tags may be in any case, text after `</answer>` is
    ignored. Not well formed: no answer, not closed, empty, longer than :data:`LONGEST` an intent, without a title, or a rationale
    that is not closed by `</think>` before the answer.

    Args:
        text: the completion.
        depth: category levels.
        most: intents that were asked for; further ones are left out. With 1 the title and levels are the answer's, whatever follows; else
            those of the first intent.
    """
    tags = list(_TAG.finditer(text))
    thought = next((t for t in reversed(tags) if (t.group(1), t.group(2).lower()) == ("/", "think")), None)
    opening = next((t for t in tags if _is(t, "", "answer") and (thought is None or t.start() >= thought.end())), None)
    if opening is None and thought is not None:
        # `</think>` came only after the answer: take the answer that there is.
        opening, thought = next((t for t in tags if _is(t, "", "answer")), None), None
    if opening is None:
        return Answer(clean(text), "", "", ("",) * depth, False, "no answer")
    rationale = clean(text[: opening.start()])
    closing = next((t for t in tags if t.start() >= opening.end()), None)
    written = text[opening.end() : closing.start() if closing else len(text)]
    content = clean(written)
    values = [content[a:b] for a, b in field_spans(content, depth)]
    intents = [
        replace(intent, start=intent.start + opening.end(), end=intent.end + opening.end())
        for intent in read_intents(written, depth)
    ]
    if closing is None:
        intents = intents[:-1]  # the end may have cut it
    intents = intents[:most]
    if most > 1:
        labelled = bool(intents) and _TITLE.search(written) is not None
        values = [intents[0].title, *intents[0].levels] if labelled else [""] * (1 + depth)
    problem = ""
    if closing is None or not _is(closing, "/", "answer"):
        problem = "answer not closed"
    elif not content:
        problem = "empty answer"
    elif len(content) > LONGEST if most == 1 else any(len(intent.text) > LONGEST for intent in intents):
        problem = "answer too long"
    elif not any(c.isalnum() for c in values[0]):
        problem = "no title"
    elif rationale and thought is None:
        problem = "rationale not closed"
    return Answer(rationale, content, values[0], tuple(values[1:]), not problem, problem, tuple(intents))


def _is(tag: re.Match[str], slash: str, name: str) -> bool:
    return tag.group(1) == slash and tag.group(2).lower() == name
