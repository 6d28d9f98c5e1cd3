"""Griffe extension (`make docs`) that rewrites our docstrings into the form that mkdocstrings expects.

Arguments that are described together (``first, second: …``) get an entry each, so that each has its own type. Roles of
Sphinx become plain code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]*)`")
TOGETHER = re.compile(r"^(?P<indent> +)(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<rest>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE)  # fmt: skip


def plain(text: str) -> str:
    """Return a docstring with an entry for each argument, and without roles."""

    def apart(match: re.Match[str]) -> str:
        return "\n".join(f"{match['indent']}{name}: {match['rest']}" for name in match["names"].split(", "))

    head, args, rest = text.partition("Args:\n")
    section, gap, after = rest.partition("\n\n")
    return ROLE.sub(r"`\1`", head + args + TOGETHER.sub(apart, section) + gap + after)


class Docstrings(griffe.Extension):
    """Extension that applies :func:`plain` to every docstring."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that has just been loaded."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)
