"""Texts of strangers: cleaned for a prompt, and rid of sentences that speak to a model in place of about an item."""

from __future__ import annotations

import re
import unicodedata
from html import unescape

_MARKUP = re.compile(
    r"<\|[^|>]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|\{[{%].{0,80}?[%}]\}|</?(?:system|user|assistant|think|answer)>|```",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE = re.compile(r"(?<=[.!?;|•])\s+|[\r\n]+")
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass|skip)\b.{0,60}\b(?:instruction|prompt|rule|above|previous|prior|earlier|everything|guideline)"
    r"|\b(?:system|assistant|developer|user|human|ai)\s*:"
    r"|\byou are (?:now )?(?:a|an|the)\b.{0,40}\b(?:assistant|model|bot|copywriter)"
    r"|\b(?:system prompt|jailbreak|language model|as an ai|new instructions?|prompt injection)\b"
    r"|\b(?:mention|say|write|output|respond|reply|print|include|append|insert|repeat|promote|advertise|recommend|announce)\b"
    r".{0,40}\b(?:exactly|verbatim|instead|following|in (?:the|your) (?:copy|text|answer|notification|push|headline))\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"^\W*(?:please\s+|now\s+|instead,?\s+)?(?:you must|mention|say|write|output|respond|reply|print|include|append|insert|repeat|promote|advertise|announce|tell (?:the )?(?:users?|readers?|everyone))\b",
    re.IGNORECASE,
)
_BLANKS = "\t\v\f\u2028\u2029"
LINK = re.compile(
    r"https?:|www\.|\b[\w.+-]+@[\w-]+\.|\b[\w-]+\.(?:com|net|org|io|co|ru|cn|de|shop|xyz|info|biz)\b|(?<![\d/-])(?!\d{4}[-/]\d\d?[-/]\d\d?\b)(?!\d\d?[-/]\d\d?[-/]\d{4}\b)\+?\d[\d ()/-]{7,}\d",
    re.IGNORECASE,
)
"""Addresses of the web, of mail, and telephone numbers; a date is none."""


def cleaned(text: str) -> str:
    """Return a text in one Unicode form (NFKC), without HTML entities, invisible characters and chat markup, on lines without surplus blanks."""
    text = _plain(text)
    while (without := _MARKUP.sub(" ", text)) != text:
        text = without
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()


def about_the_item(text: str, *, name: bool = False) -> str:
    """Return the sentences of a text before the first that instructs a model, without those that hold an address, on one line.

    What follows an instruction is its content, so nothing behind one is kept, nor behind the markup of a chat.

    Args:
        text: as somebody wrote it. name: True for a title, in which an order is no sign ("Say Anything"); only clear ones count.
    """
    kept: list[str] = []
    for sentence in _SENTENCE.split(_plain(text)):
        before, markup, _ = _MARKUP.sub("\0", sentence).partition("\0")
        if _INSTRUCTION.search(before) or (not name and _ORDER.search(before)):
            break
        if not LINK.search(before):
            kept += before.split()
        if markup:
            break
    return " ".join(kept)


def _plain(text: str) -> str:
    """Return a text in one Unicode form (NFKC) without HTML entities and invisible characters."""
    return "".join(
        " " if letter in _BLANKS else letter
        for letter in unicodedata.normalize("NFKC", unescape(text))
        if letter == "\n" or letter in _BLANKS or unicodedata.category(letter) not in ("Cc", "Cf", "Co", "Cs", "Cn")
    )
