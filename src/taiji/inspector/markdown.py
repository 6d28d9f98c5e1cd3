"""The Markdown that run cards are written in, as HTML: headings, paragraphs, lists, tables, code, bold. Everything else is text."""

from __future__ import annotations

import re
from itertools import groupby

from markupsafe import Markup, escape

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def to_html(text: str) -> Markup:
    """Escape first, format afterwards: no tag of the text survives."""
    parts: list[str] = []
    for kind, group in groupby(text.splitlines(), key=_kind):
        lines = list(group)
        if kind == "heading":
            for line in lines:
                level = min(len(line) - len(line.lstrip("#")), 4)
                parts.append(f"<h{level}>{_inline(line.lstrip('# '))}</h{level}>")
        elif kind == "list":
            parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
        elif kind == "table":
            parts.append(_table(lines))
        elif kind == "text":
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return Markup("\n".join(parts))


def _kind(line: str) -> str:
    if not line.strip():
        return "gap"
    if re.match(r"#{1,4} ", line):
        return "heading"
    return "list" if line.startswith("- ") else "table" if line.startswith("|") else "text"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    body = [row for row in rows[1:] if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in rows[0])
    told = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead><tr>{head}</tr></thead><tbody>{told}</tbody></table></div>'


def _inline(text: str) -> str:
    return _INLINE.sub(
        lambda found: f"<code>{found[1]}</code>" if found[1] else f"<b>{found[2]}</b>", str(escape(text))
    )
