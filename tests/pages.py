"""Blocks of the documentation, and how each is run.

Every fenced block names its language. `text` is for reading. ``csv``, ``yaml`` and ``json`` are parsed; with a name
(```yaml mapping.yaml) they are written to that file, and so is ``python`` with a name. ``python`` runs in one namespace
a page, ``bash`` with ``bash -euo pipefail`` in one folder a page. Two comments on the line before a block change that,
for every reader of the source to see:

    <!-- not run: the reason -->            the block is not run
    <!-- run first: x = 1; y = 2 -->        Python that gives the block the names it takes for granted

In shell blocks ``taiji`` is the real command with tiny sizes and a tiny model (:mod:`tests.documented`), ``make`` and
``pip`` only check that what they are asked for exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LANGUAGES = ("bash", "python", "csv", "yaml", "json", "text")
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run|run first): (?P<said>.+?) -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def pages() -> list[Path]:
    """README, docs and tutorials; the tutorials in the order in which they build on each other."""
    docs = ROOT / "docs"
    first = [docs / "tutorials" / "own-data.md", docs / "tutorials" / "serving.md"]
    rest = sorted(path for path in docs.rglob("*.md") if path not in first)
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *first, *rest]


@dataclass(frozen=True)
class Block:
    """A fenced block: where, what, and what its mark says."""

    page: Path
    line: int
    language: str
    name: str
    text: str
    not_run: str
    first: str


def blocks(page: Path) -> list[Block]:
    """A page's blocks in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, _, name = match["info"].partition(" ")
        said = {match["mark"]: match["said"]}
        found.append(
            Block(
                page,
                text[: match.start()].count("\n") + 1,
                language,
                name.strip(),
                match["text"],
                said.get("not run", ""),
                said.get("run first", ""),
            )
        )
    return found
