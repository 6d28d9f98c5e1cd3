"""Clean texts by strangers before a prompt shows them, and remove sentences that address a model instead of describing
the item.

The patterns are for English. They are only an additional layer of defence: text that they miss must still pass the
checks of the copy.
"""

from __future__ import annotations

import re
import unicodedata
from html import unescape

_MARKUP = re.compile(
    r"<\|[^|>]{0,40}\|>|</?s>|\[/?(?:INST|system|user|assistant|prefill)\]|<</?SYS>>|\{[{%].{0,80}?[%}]\}|```|</?[a-z_][\w:-]{0,40}(?:\s[^<>]{0,200})?/?>|<!--",
    re.IGNORECASE | re.DOTALL,
)
"""Markup of chats, templates and documents. Plain formatting (:data:`_FORM`) is removed first."""
_FORM = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|center|dd|div|dl|dt|em|font|h[1-6]|i|img|li|ol|p|small|span|strong|sub|sup|table|tbody|td|th|thead|tr|u|ul)(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<(?:br|hr)\s*/?>|</(?:p|li|div|h[1-6]|tr|dd)>", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;|•])\s+|[\r\n]+")
_TEXT = r"(?:copy|notification|headline|slogan|tagline|ad|advert|advertisement|answer|output|reply|response)"
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass|skip)\b.{0,60}\b(?:instruction|prompt|rule|above|previous|prior|earlier|everything|guideline)"
    r"|\b(?:system|assistant|developer|user|human|ai)\s*:"
    r"|\byou are (?:now )?(?:a|an|the)\b.{0,40}\b(?:assistant|model|bot|copywriter)"
    r"|\b(?:system prompt|jailbreak|language model|as an ai|new (?:instruction|task|rule)s?|prompt injection|end of (?:comments|facts|data|input|reviews))\b"
    r"|\b(?:mention|say|write|output|respond|reply|print|include|append|insert|repeat|promote|advertise|recommend|announce)\b.{0,40}\b(?:exactly|verbatim|instead|following)\b"
    r"|\b(?:mention|say|write|print|include|append|insert|repeat|add|use|put|call|name|describe|start|begin|end|replace)\b"
    r".{0,40}\b(?:in|to|with|of|into) (?:the|your|this|each|every) (?:text|copy|answer|notification|push|headline)\b"
    r"|^\W*(?:your|the|this|each|every) "
    + _TEXT
    + r"\b.{0,20}\b(?:must|should|shall|has to|needs to|will|reads?|is|be)\b"
    r"|\b(?:start|begin|end) (?:your|the) (?:text|copy|answer|notification|push|headline|sentence)\b"
    r"|\bnow on\b.{0,40}\b(?:is|are) (?:called|named)\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"^\W*(?:please\s+|now\s+|instead,?\s+)*"
    r"(?:you (?:must|should|have to|need to|will|shall)(?: (?:only|always|now|also|never))? (?:mention|say|write|talk|speak|describe|call|name|claim|tell|promote|advertise|include|use)\b"
    r"|you must|your (?:task|job|goal|role|aim|instruction)s?\b|(?:do not|don['’]t|never) (?:mention|describe|write|say|talk|name|call)\b"
    r"|mention|say|write|output|respond|reply|print|include|append|insert|repeat|promote|advertise|announce|describe|pretend|claim)\b"
    r"|^\W*(?:please\s+|now\s+|instead,?\s+)*(?:(?:call|name) (?:it|this|the)\b|use (?:the )?(?:word|name|title|phrase|brand)s?\b|replace (?:the|its|your)\b|(?:start|begin) with\b"
    r"|make (?:sure|certain)\b.{0,60}\b(?:appears?|mention(?:ed|s)?|says?|said|written|included?|"
    + _TEXT
    + r")\b|make it (?:sound|look|seem)\b|let (?:the|your) "
    + _TEXT
    + r"\b|tell (?:the |your |all )?(?:users?|readers?|customers?|buyers?|shoppers?|people|everyone)\b"
    r"|#{2,}|(?:(?:updated |new |real |actual |correct )?(?:title|instructions?|task|prompt|comments?)|"
    + _TEXT
    + r")\s*[:=])",
    re.IGNORECASE,
)
READ = 20_000
"""Number of characters of a text that are read; the rest is not evidence."""
_BLANKS = "\t\v\f\u2028\u2029"
_DOMAINS = "com|net|org|io|co|ru|cn|de|shop|xyz|info|biz|top|store|online|site|club|app|dev|ly|gg|tv|cc|uk|fr|es|eu|nl|pl|br|jp|kr|ai|link|click|live|vip|pro|icu"
LINK = re.compile(
    r"\b\w{2,12}://|\bwww\b\s*\.|\bt\.me\b|\b[\w.+-]{1,64}@[\w-]{1,63}\.|\b[\w-]{2,63}\.(?:"
    + _DOMAINS
    + r")\b(?!['’])|\b[\w-]{1,63}\.[a-z]{2,20}/\w"
    r"|\b[\w-]{2,63}(?:\s\.\s?|\s?[(\[]\s?(?:\.|dot)\s?[)\]]\s?|\sdot\s)(?:com|net|org|io|shop|xyz|store|top)\b"
    r"|(?<![\d/-])(?!\d{4}[-/]\d\d?[-/]\d\d?\b)(?!\d\d?[-/]\d\d?[-/]\d{4}\b)\+?\d[\d ()/-]{7,}\d",
    re.IGNORECASE,
)
"""Web addresses, e-mail addresses and telephone numbers, but not dates."""
_MIXED = re.compile(r"[A-Za-z][\u0370-\u052f]|[\u0370-\u052f][A-Za-z]")
_UNITS = str.maketrans("", "", "μµΩΩ")
_SPACED = re.compile(r"\b(?:[^\W\d_][\s._*-]+){3,}[^\W\d_]\b")
_LEET = re.compile(r"(?<=[^\W\d_])[013457@$]|[013457@$](?=[^\W\d_])")
_LETTERS = dict(zip("013457@$", "oieastas", strict=True))


def cleaned(text: str) -> str:
    """Return a text in Unicode form NFKC, without HTML entities, invisible characters, markup and surplus white space.
    Line breaks are kept."""
    text = _plain(text)
    while (without := _MARKUP.sub(" ", _FORM.sub(" ", text))) != text:
        text = without
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()


def about_the_item(text: str, *, name: bool = False) -> str:
    """Return the part of a text before the first sentence that instructs a model, on one line.

    Nothing after an instruction is kept, because it is likely to belong to the instruction. Markup other than plain
    formatting (``<b>``, ``<br>``) ends the text in the same way. Sentences that match :data:`LINK`
    are dropped.

    Args:
        text: text as it was written.
        name: True for a title or a category. It may begin with an imperative ("Say Anything"), so an imperative at its
            beginning is not taken as an instruction.
    """
    kept: list[str] = []
    lines = _plain("\n".join(text[:READ].splitlines()))
    for place, sentence in enumerate(_SENTENCE.split(_FORM.sub("", _BREAK.sub("\n", lines)))):
        before, markup, _ = _MARKUP.sub("\0", sentence).partition("\0")
        if _instructs(before, name and place == 0):
            break
        if not LINK.search(before):
            kept += before.split()
        if markup:
            break
    return " ".join(kept)


def _instructs(sentence: str, name: bool) -> bool:
    """Return True if a sentence addresses a model, plainly or in disguise.

    Disguises are spaced letters, digits or symbols in place of letters, and letters of two scripts in one word.
    """
    together = _SPACED.sub(lambda found: re.sub(r"[\W_]", "", found[0]), sentence)
    bare = "".join(letter for letter in unicodedata.normalize("NFD", together) if not unicodedata.combining(letter))
    read = _LEET.sub(lambda found: _LETTERS[found[0]], bare)
    mixed = _MIXED.search(sentence.translate(_UNITS))
    return bool(mixed) or any(
        _INSTRUCTION.search(form) or (not name and _ORDER.search(form))
        for form in dict.fromkeys((sentence, together, read))
    )


def _plain(text: str) -> str:
    """Return a text in Unicode form NFKC, without HTML entities (even if escaped repeatedly) and without invisible
    characters."""
    while (shown := unescape(text)) != text:
        text = shown
    return "".join(
        " " if letter in _BLANKS else letter
        for letter in unicodedata.normalize("NFKC", text)
        if letter == "\n" or letter in _BLANKS or not _invisible(letter)
    )


def _invisible(letter: str) -> bool:
    """Return True if a character is invisible: control and format characters, fillers, and variation selectors."""
    return (
        unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs", "Cn")
        or letter in "\u115f\u1160\u3164\u034f\u17b4\u17b5"
        or "\ufe00" <= letter <= "\ufe0f"
    )
