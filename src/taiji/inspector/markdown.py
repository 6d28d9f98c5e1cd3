"""Convert the Markdown of run cards to HTML: headings, paragraphs, lists, tables, code and bold text. Everything else
stays text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

MARKDOWN_RULES = ("heading", "list", "table", "newline", "backticks", "emphasis", "escape")
"""Enabled rules besides paragraphs. Links, images and HTML are disabled, because a card contains names from the
data."""
REPLACED: Mapping[str, str] = {
    "strong_open": "<b>",
    "strong_close": "</b>",
    "softbreak": " ",
    "th_open": '<th scope="col">',
    "td_open": "<td>",
    "table_open": '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>',
    "table_close": "</table></div>\n",
}
"""HTML by kind of token. It replaces the output of the default renderer."""


def to_html(text: str) -> Markup:
    """Return the HTML of a card. HTML tags in the text are escaped."""
    return Markup(_reader().render(text).replace("\n", ""))  # line breaks inside texts are already spaces


@cache
def _reader() -> MarkdownIt:
    made = MarkdownIt("zero", {"html": False}).enable(list(MARKDOWN_RULES))
    for kind, html in REPLACED.items():
        made.add_render_rule(kind, _constant(html))
    return made


def _constant(html: str) -> Callable[..., str]:
    def rule(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return html

    return rule
