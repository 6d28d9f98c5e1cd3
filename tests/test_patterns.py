"""No regular expression of the package may take time that grows with the square of a text: texts come from logs, models
and requests."""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "taiji"
FLAGS = {"IGNORECASE": re.IGNORECASE, "DOTALL": re.DOTALL, "MULTILINE": re.MULTILINE, "VERBOSE": re.VERBOSE}
UNITS = (
    " ",
    "\n",
    "\t\n",
    "<",
    "< ",
    "<a",
    "a",
    "a ",
    "1",
    "1,",
    "_",
    "-",
    ".",
    "'a",
    '"',
    "(",
    ";",
    "<!--",
    "<think>",
    "<script",
)
LENGTH = 64_000
LIMIT_S = 0.25
"""Processor time of this process; what grows with the length takes a hundredth of it, what grows with its square four
times as much and more."""


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the place and the pattern of every regular expression that is written out in the source."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args):
                continue
            first = node.args[0]
            if (
                isinstance(first, ast.Constant)
                and isinstance(first.value, str)
                and ast.unparse(node.func) != "re.escape"
            ):
                named = [
                    FLAGS[part.attr]
                    for part in ast.walk(node)
                    if isinstance(part, ast.Attribute) and part.attr in FLAGS
                ]
                flags = re.RegexFlag(0)
                for flag in named:
                    flags |= flag
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", re.compile(first.value, flags)


def too_slow(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether finding all matches takes longer than the limit."""

    class Late(Exception):
        pass

    def stop(number: int, frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        for _ in pattern.finditer(text):
            pass
    except Late:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return False


@pytest.mark.parametrize("ends", [("", "!"), ("<", "x")], ids=["open", "tag"])
def test_time_grows_with_the_length_of_the_text(ends: tuple[str, str]) -> None:
    texts = {unit: ends[0] + unit * (LENGTH // len(unit)) + ends[1] for unit in UNITS}
    found = [(place, unit) for place, pattern in patterns() for unit, text in texts.items() if too_slow(pattern, text)]
    assert not found


def test_time_grows_with_the_length_of_a_text_that_begins_as_a_pattern_does() -> None:
    """A pattern may read a text fast that it does not begin to fit, and only then."""
    found = []
    for place, pattern in patterns():
        for word in set(re.findall(r"[A-Za-z]{2,}", pattern.pattern)):
            found += [(place, word, unit) for unit in " \n:,-" if too_slow(pattern, word + unit * (LENGTH // 4) + "!")]
    assert not found


def test_a_pattern_whose_time_grows_with_the_square_is_found() -> None:
    assert too_slow(re.compile(r"<\s*(/?)\s*(think|answer)\s*>"), "<" + " " * LENGTH)
    assert len(list(patterns())) > 40
