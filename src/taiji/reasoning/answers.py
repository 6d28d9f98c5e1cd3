"""Format of a completion: write completions in this format, and parse a language model's output leniently.

<think>rationale</think><answer>Item title: …; Category L1: …; L2: …; L3: …</answer>

An answer that is a set of intents has one intent per line between the tags.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from functools import lru_cache

THINK = "<think>"
LONGEST = 400
"""Largest number of characters in an answer, or in each intent of a set. A longer answer is not well-formed."""
DEPTH = 3
"""Default number of category levels to read."""
DEEPEST = 9
"""Largest number of category levels that the format supports."""
_TAG = re.compile(r"<\s*+(/?)\s*+(think|answer)\s*+>", re.IGNORECASE)
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text|image))>|\[/?(?:INST|SYSTEM_PROMPT)\]"
)
"""Special tokens of known model families. A tokenizer would read them as turn boundaries or as the end of the text."""


_TITLE = re.compile(
    r"(?P<label>(?<!\w)item title\s*+:)|(?:^|[;|,\n]|(?<=\s)[-*•]|(?<!\S)\d{1,2}[.)])\s{0,99}+(?P<short>title\s*+:)",
    re.IGNORECASE | re.MULTILINE,
)
"""Start of an intent: ``item title:`` anywhere; ``title:`` at a line start or after a separator, bullet or number."""
_BULLET = re.compile(r"^\s*(?:[-*•]+|\d{1,2}[.)])?\s*")
_REST = " \t\n;|,-*•"
"""Separators and bullets between intents."""
_NUMBER = {True: re.compile(r"\n\s{0,99}+\d{1,2}[.)]\s*+$"), False: re.compile(r"\s\d{1,2}[.)]\s*$")}
"""Number before an intent. Key True: at a line start, in answers of several lines. Key False: after a space."""
LOOP_TAIL, LOOP_LEAST, LOOP_TIMES = 400, 40, 2.5
"""Limits of :func:`ends_in_loop`: number of characters at the end of a text to search, smallest number of characters in
all repetitions together, and smallest number of repetitions."""


@dataclass(frozen=True)
class Intent:
    """One predicted item of an answer.

    Attributes:
        title: title of the item.
        levels: category levels of the item, as many as requested; a missing level is an empty string.
        start, end: character range of the intent in the text.
    """

    title: str
    levels: tuple[str, ...]
    start: int = attribute(default=0, compare=False)
    end: int = attribute(default=0, compare=False)

    @property
    def text(self) -> str:
        """The intent in the canonical form of :func:`format_answer`."""
        return format_answer(self.title, self.levels)


@dataclass(frozen=True)
class Answer:
    """Parts of a completion.

    Attributes:
        rationale: the text inside `<think>`, without the tags.
        text: the text inside `<answer>` with white space collapsed; empty if there is no answer.
        title: title in the answer; empty if there is none.
        levels: category levels in the answer, as many as requested; a missing level is an empty string.
        well_formed: True if the format is correct, so that title and levels can be trusted.
        problem: reason why the answer is not well-formed; empty if it is.
        intents: intents in the order of the text, at most as many as requested, whether or not the answer is
            well-formed. If the answer is not closed, its last intent is dropped, because it may be cut off.
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
        """Rationale and answer as one text to embed for features, whether or not they are well-formed; empty if both
        are empty."""
        return f"{self.rationale} {self.text}".strip()


def clean(text: str) -> str:
    """Return a text as one line, without tags and special tokens."""
    return " ".join(_SPECIAL.sub(" ", _TAG.sub(" ", text)).split())


def format_answer(title: str, levels: tuple[str | None, ...] | list[str | None]) -> str:
    """Return the text inside `<answer>`; missing levels are omitted.

    Semicolons and angle brackets in names are replaced, because they would be parsed as part of the format.
    """
    parts = [f"Item title: {field(title)}"]
    for number, level in enumerate(levels, start=1):
        if level is not None and field(level):
            parts.append(f"{'Category ' if number == 1 else ''}L{number}: {field(level)}")
    return "; ".join(parts)


def field(text: str) -> str:
    """Return a name without special tokens, and with ``;``, ``<`` and ``>`` replaced by ``,``, ``(`` and ``)``."""
    return " ".join(_SPECIAL.sub(" ", text).replace(";", ",").replace("<", "(").replace(">", ")").split())


def format_completion(rationale: str, answer: str) -> str:
    """Return the completion that a student is trained on: the rationale (possibly empty) and the text of the answer."""
    return f"<think>{clean(rationale)}</think><answer>{answer}</answer>"


def format_set(lines: Sequence[str]) -> str:
    """Return the text inside `<answer>` for a set of intents, each from :func:`format_answer`."""
    return "\n".join(lines)


def answer_span(rationale: str, answer: str) -> tuple[int, int]:
    """Return the character range of the answer text within :func:`format_completion`."""
    start = len(f"<think>{clean(rationale)}</think><answer>")
    return start, start + len(answer)


def answer_form(depth: int, most: int = 1) -> str:
    """Return the format example that a prompt shows: ``Item title: ...; Category L1: ...``, twice for a set.

    Args:
        depth: number of category levels.
        most: largest number of intents per answer; above 1, the answer is a set.
    """
    return format_set([format_answer("...", ["..."] * depth)] * min(most, 2))


@lru_cache(maxsize=DEEPEST)
def _label(depth: int) -> re.Pattern[str]:
    levels = f"|(?:category )?l[1-{depth}]" if depth else ""
    return re.compile(rf"(?:^|;)\s*(item title|title{levels})\s*:", re.IGNORECASE)


def field_spans(answer: str, depth: int = DEPTH) -> list[tuple[int, int]]:
    """Return the character ranges of the values in an answer text: title, L1, L2, … down to ``depth``; (0, 0) for a
    missing value."""
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
    """Return :func:`field_spans` of each line of an answer text. In a set, each line is one intent."""
    spans, start = [], 0
    for line in answer.split("\n"):
        spans.append([(start + a, start + b) if b > a else (0, 0) for a, b in field_spans(line, depth)])
        start += len(line) + 1
    return spans


def read_intents(content: str, depth: int = DEPTH) -> list[Intent]:
    """Read the intents in an answer text.

    Each intent begins at a title label, such as ``Item title:``. If the text has no title label, each line (or each
    part between `|`) is one intent: a title, then levels after semicolons.
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
    """Parse a completion. Never raises.

    The opening `<think>` may be missing (usually the prompt already contains it), tags may be in any case, and text
    after `</answer>` is ignored. A completion is not well-formed in these cases: there is no answer; the answer is not
    closed, is empty, has no title, or is longer than :data:`LONGEST` characters per intent; the rationale is not closed
    by `</think>` before the answer.

    Args:
        text: the completion.
        depth: number of category levels to read.
        most: number of intents requested; further intents are dropped. If it is 1, title and levels are read from the
            whole answer, otherwise from the first intent.
    """
    tags = list(_TAG.finditer(text))
    thought = next((t for t in tags if _is(t, "/", "think")), None)
    opening = next((t for t in tags if _is(t, "", "answer") and (thought is None or t.start() >= thought.end())), None)
    if opening is None and thought is not None:
        # `</think>` appears only after the answer: use that answer.
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
        intents = intents[:-1]  # the last intent may have been cut off
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


def ends_in_loop(text: str) -> bool:
    """Return True if a text ends in a loop: at least 2.5 repetitions of one piece, at least 40 characters in total.

    The piece may be as short as one character or as long as a line.
    """
    back = text[: -LOOP_TAIL - 1 : -1]
    for period in range(1, int(len(back) / LOOP_TIMES) + 1):
        needed = max(LOOP_LEAST, math.ceil(LOOP_TIMES * period))
        if len(back) >= needed and back[: needed - period] == back[period:needed]:
            return True
    return False
