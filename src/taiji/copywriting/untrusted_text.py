"""Texts of strangers: cleaned for a prompt, and rid of sentences that speak to a model in place of about an item.

The patterns are English. They are depth, not the guarantee: what they let through must still pass the checks of the copy.
"""

from __future__ import annotations

import re
import unicodedata
from html import unescape

_MARKUP = re.compile(
    r"<\|[^|>]{0,40}\|>|</?s>|\[/?(?:INST|system|user|assistant|prefill)\]|<</?SYS>>|\{[{%].{0,80}?[%}]\}|```|</?[a-z_][\w:-]{0,40}(?:\s[^<>]{0,200})?/?>|<!--",
    re.IGNORECASE | re.DOTALL,
)
"""Markup of chats, templates and documents; what is mere form (:data:`_FORM`) is taken out before."""
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
"""Characters of a text that are read; what is behind them is no evidence."""
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
"""Addresses of the web, of mail, and telephone numbers; a date is none."""
_MIXED = re.compile(r"[A-Za-z][\u0370-\u052f]|[\u0370-\u052f][A-Za-z]")
_UNITS = str.maketrans("", "", "μµΩΩ")
_SPACED = re.compile(r"\b(?:[^\W\d_][\s._*-]+){3,}[^\W\d_]\b")
_LEET = re.compile(r"(?<=[^\W\d_])[013457@$]|[013457@$](?=[^\W\d_])")
_LETTERS = dict(zip("013457@$", "oieastas", strict=True))


def cleaned(text: str) -> str:
    """Return a text in one Unicode form (NFKC), without HTML entities, invisible characters and markup, on lines without surplus blanks."""
    text = _plain(text)
    while (without := _MARKUP.sub(" ", _FORM.sub(" ", text))) != text:
        text = without
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()


def about_the_item(text: str, *, name: bool = False) -> str:
    """Return the sentences of a text before the first that instructs a model, without those that hold an address, on one line.

    What follows an instruction is its content, so nothing behind one is kept, nor behind markup other than that of plain form (``<b>``, ``<br>``).

    Args:
        text: as somebody wrote it. name: True for a title, which may begin with an order ("Say Anything"); only clear ones count there.
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
    """Return whether a sentence speaks to a model, as it is written or in disguise (letters apart, digits and marks for letters, letters of two scripts in a word)."""
    together = _SPACED.sub(lambda found: re.sub(r"[\W_]", "", found[0]), sentence)
    bare = "".join(letter for letter in unicodedata.normalize("NFD", together) if not unicodedata.combining(letter))
    read = _LEET.sub(lambda found: _LETTERS[found[0]], bare)
    mixed = _MIXED.search(sentence.translate(_UNITS))
    return bool(mixed) or any(
        _INSTRUCTION.search(form) or (not name and _ORDER.search(form))
        for form in dict.fromkeys((sentence, together, read))
    )


def _plain(text: str) -> str:
    """Return a text in one Unicode form (NFKC) without HTML entities, however often they were escaped, and invisible characters."""
    while (shown := unescape(text)) != text:
        text = shown
    return "".join(
        " " if letter in _BLANKS else letter
        for letter in unicodedata.normalize("NFKC", text)
        if letter == "\n" or letter in _BLANKS or not _invisible(letter)
    )


def _invisible(letter: str) -> bool:
    """Return whether nothing of a character is seen: controls, formats, fillers, selectors of variants."""
    return (
        unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs", "Cn")
        or letter in "\u115f\u1160\u3164\u034f\u17b4\u17b5"
        or "\ufe00" <= letter <= "\ufe0f"
    )
