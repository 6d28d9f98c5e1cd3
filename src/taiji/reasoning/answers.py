"""The one format of a completion: write it, and read whatever a language model made of it.

<think>rationale</think><answer>Item title: …; Category L1: …; L2: …; L3: …</answer>
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

THINK = "<think>"
LONGEST = 400
"""Characters of an answer; beyond it the model rambles."""
DEPTH = 3
"""Category levels that are looked for by default."""
DEEPEST = 9
"""Category levels that the format can name."""
_TAG = re.compile(r"<\s*(/?)\s*(think|answer)\s*>", re.IGNORECASE)
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text|image))>|\[/?(?:INST|SYSTEM_PROMPT)\]"
)
"""Special tokens of known model families: in a text they would be read as turns and ends."""


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
    """

    rationale: str
    text: str
    title: str
    levels: tuple[str, ...]
    well_formed: bool
    problem: str

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


def answer_span(rationale: str, answer: str) -> tuple[int, int]:
    """Characters of the answer's text within :func:`format_completion`."""
    start = len(f"<think>{clean(rationale)}</think><answer>")
    return start, start + len(answer)


def answer_form(depth: int) -> str:
    """Return the form of an answer with so many category levels, for a prompt: ``Item title: ...; Category L1: ...``."""
    return format_answer("...", ["..."] * depth)


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


def parse(text: str, depth: int = DEPTH) -> Answer:
    """Read a completion and ``depth`` category levels of its answer; never raises.

    The opening `<think>` may be missing (it is usually prefilled), tags may be in any case, text after `</answer>` is
    ignored. Not well formed: no answer, not closed, empty, longer than :data:`LONGEST`, without a title, or a rationale
    that is not closed by `</think>` before the answer.
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
    content = clean(text[opening.end() : closing.start() if closing else len(text)])
    values = [content[a:b] for a, b in field_spans(content, depth)]
    problem = ""
    if closing is None or not _is(closing, "/", "answer"):
        problem = "answer not closed"
    elif not content:
        problem = "empty answer"
    elif len(content) > LONGEST:
        problem = "answer too long"
    elif not any(c.isalnum() for c in values[0]):
        problem = "no title"
    elif rationale and thought is None:
        problem = "rationale not closed"
    return Answer(rationale, content, values[0], tuple(values[1:]), not problem, problem)


def _is(tag: re.Match[str], slash: str, name: str) -> bool:
    return tag.group(1) == slash and tag.group(2).lower() == name
