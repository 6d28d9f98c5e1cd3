"""A small grammar of titles and copy: words that name a topic, kinds of items, and templates that combine them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.world.shop import ITEM_KINDS, THEMES

Array = NDArray[Any]
TOPICS = (
    *THEMES,
    ("Desert", "Camel", "Oasis", "Dune", "Nomad", "Cactus"),
    ("Robot", "Circuit", "Pixel", "Hacker", "Cyber", "Drone"),
    ("Puppy", "Kitten", "Hamster", "Parrot", "Rabbit", "Pony"),
    ("Theatre", "Opera", "Ballet", "Puppet", "Circus", "Comedy"),
    ("Racing", "Turbo", "Rally", "Motor", "Diesel", "Garage"),
    ("Yoga", "Pilates", "Meditation", "Wellness", "Breathing", "Balance"),
    ("Detective", "Mystery", "Noir", "Heist", "Alibi", "Forensic"),
    ("Winter", "Snow", "Skiing", "Icicle", "Frost", "Sleigh"),
)
"""Words of each topic; no word belongs to two topics."""
VIDEO_KINDS = (
    ("CLIP", "HOWTO", "TUTORIAL"),
    ("CLIP", "HOWTO", "TEST"),
    ("CLIP", "FUN", "SKETCH"),
    ("CLIP", "FUN", "CHALLENGE"),
    ("STORY", "REAL", "REPORT"),
    ("STORY", "REAL", "PORTRAIT"),
    ("STORY", "MADE", "EPISODE"),
    ("STORY", "MADE", "TRAILER"),
    ("TALK", "ONE", "VLOG"),
    ("TALK", "ONE", "REVIEW"),
    ("TALK", "MANY", "DEBATE"),
    ("TALK", "MANY", "INTERVIEW"),
)
KINDS = {"shop": ITEM_KINDS, "films": VIDEO_KINDS, "books": VIDEO_KINDS}
"""Kinds of items by the domain of a scenario, each with three category levels; kinds are independent of topics."""
OPINIONS = ("Great", "Lovely", "Boring", "Strange", "Funny", "Real")
STYLES = {
    "suspense": "You will not guess what this {words} {kind} leads to…",
    "emotional": "This {words} {kind} will warm your heart",
    "factual": "New: {words} {kind}",
    "question": "Do you know this {words} {kind}?",
    "urgent": "Only today: {words} {kind}!",
    "personal": "Picked for you: {words} {kind}",
}
"""Styles of copy, with a template each."""
OPENINGS = (
    "",
    "Just in. ",
    "A small surprise. ",
    "Worth a look. ",
    "People talk about it. ",
    "Hard to believe. ",
    "Take a breath. ",
    "You have waited long enough. ",
)
CLOSINGS = (
    "",
    " See inside.",
    " Tell a friend.",
    " You decide.",
    " Open it and find out what is behind it.",
    " It waits for you.",
    " Read more.",
    " Have a look while it is there.",
)
"""Wordings of copy: an opening is put before the text of a style's template, and a closing after it."""


def words_of(topics: Array, variants: Array) -> list[str]:
    """Return texts of topic words, given topics (N, W) and indices of their words (N, W)."""
    flat = np.array([list(words) for words in TOPICS], dtype=object)
    picked = flat[topics % len(TOPICS), variants % flat.shape[1]]
    return [" ".join(dict.fromkeys(row)) for row in picked.tolist()]


def titles(topics: Array, variants: Array, kinds: Array, domain: str) -> list[str]:
    """Return titles: topic words (N, W), then the kind (N,) in lower case ("Alpine Trail lamp")."""
    table = KINDS.get(domain, ITEM_KINDS)
    return [f"{words} {table[kind][2].lower()}" for words, kind in zip(words_of(topics, variants), kinds.tolist())]


def copies(styles: Array, texts: list[str]) -> list[str]:
    """Return the copy of each title in its style; ``styles`` (N,) are indices into :data:`STYLES`."""
    templates = list(STYLES.values())
    parts = (text.rpartition(" ") for text in texts)
    return [templates[style].format(words=words, kind=kind) for style, (words, _, kind) in zip(styles.tolist(), parts)]


def worded(copies: list[str], wordings: Array) -> list[str]:
    """Return copies with an opening and a closing added.

    Wording w has opening w // C and closing w % C, where C is the number of closings; ``wordings`` is (N,).
    """
    found = []
    for text, wording in zip(copies, wordings.tolist()):
        opening, closing = divmod(wording, len(CLOSINGS))
        found.append(f"{OPENINGS[opening]}{text}{CLOSINGS[closing]}")
    return found
