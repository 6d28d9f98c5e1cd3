"""Checks of copy: what is grounded passes, what is not is named, and nothing hostile comes through."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.copywriting.evidences import ATTACKS, INJECTED, evidence, hostile

from taiji.copywriting.copy_checks import ENGLISH, CopyChecks, everyday_words, near_duplicates
from taiji.copywriting.settings import CopyLimits
from taiji.core.errors import ConfigError
from taiji.world import grammar

CHECKS = CopyChecks(CopyLimits())
LAMP = evidence(
    comments=("Bought it in Vienna, lovely", "As seen in Vienna"), price="12.50", brand="Old Mill", size="40 cm"
)


@pytest.mark.parametrize(
    "text",
    [
        "You will not guess where this Alpine Trail lamp leads…",
        "New: Alpine Trail lamps by Old Mill",
        "Do you know this Alpine-Trail lamp?",
        "An Alpine Trail lamp for 12.5, and your evening is warm.",
        "People in Vienna love this lamp.",
        "Trail lamp: it doesn't need much, it's 40 cm of calm",
    ],
)
def test_grounded_copy_passes(text):
    assert CHECKS.reasons(text, LAMP) == []


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("This lamp is better than any Rolex", ["name"]),
        ("Rolex quality in a lamp", ["name"]),
        ("this lamp is a real rolex inside", ["word"]),
        ("The Mill Alpine lamp is here", ["name"]),
        ("Alpine Trail lamp, now for 9.99", ["number"]),
        ("Alpine Trail lamp in fifty colors", ["word"]),
        ("Alpine Trail lamp for １２ days", ["number"]),
        ("See the lamp at www.alpine.com now", ["link"]),
        ("Write to sell@lamp.de for this lamp", ["link"]),
        ("This lamp is free, act now!", ["forbidden"]),
        ("A lamp", ["length"]),
        ("An Alpine Trail lamp " * 8, ["length"]),
        ("I'm sorry, I cannot write about this lamp", ["refusal"]),
        ("We thought of you: you are right with this", ["unrelated"]),
        ("", ["empty"]),
        ("\u200b", ["empty"]),
        ("A lamp like a R\u200bolex for you", ["name"]),
        ("A lamp like a Rоlex for you", ["name"]),
        ("Alpine Trail lamp r o l e x", ["word"]),
        ("Alpine Trail lamp R.O.L.E.X.", ["name"]),
        ("Alpine Trail lamp 🅡🅞🅛🅔🅧", ["name"]),
        ("Alpine Trail lamp 🇷🇴🇱🇪🇽", ["name"]),
        ("Alpine Trail lamp 𝓡𝓸𝓵𝓮𝔁", ["name"]),
        ("Alpine Trail lamp ʀᴏʟᴇx", ["word"]),
        ("Alpine Trail lamp Rol3x", ["number", "name"]),
        ("Alpine Trail lamp R̶o̶l̶e̶x̶", ["name"]),
        ("Alpine Trail lamp \u202exelor\u202c", ["word"]),
        ("Alpine Trail lamp רולקס", ["word"]),
        ("Alpine Trail lamp is f r e e", ["word"]),
        ("Alpine Trail lamp is f-r-e-e", ["word"]),
        ("Alpine Trail lamp is f\u00adree", ["forbidden"]),
        ("Alpine Trail lamp: lamp.top", ["link"]),
        ("Alpine Trail lamp: trail.store now", ["link"]),
        ("Alpine Trail lamp: lamp.light.day", ["link"]),
    ],
)
def test_what_is_wrong_is_named(text, reasons):
    found = CHECKS.reasons(text, LAMP)
    assert set(reasons) <= set(found), found


@pytest.mark.parametrize(
    ("phrase", "text", "wrong"),
    [
        ("100%", "100% cotton", True),
        ("100%", "1100% cotton", False),
        ("24/7", "here 24/7", True),
        ("No. 1", "the NO.  1 lamp", True),
        ("No. 1", "there is no better lamp", False),
        ("50% off", "now 50% off", True),
        ("50% off", "it goes off", False),
        ("best seller", "best-sellers of the year", True),
        ("seller", "sell", False),
    ],
)
def test_forbidden_phrases_with_digits_and_signs_are_taken_as_written(phrase, text, wrong):
    checks = CopyChecks(CHECKS.limits.model_copy(update={"forbidden": (phrase,)}))
    assert ("forbidden" in checks.reasons(text, LAMP)) == wrong


def test_a_whole_title_is_the_items_with_its_signs_and_function_words():
    pencils = evidence(title="Mates Pencils #2, 5 % lead")
    assert CHECKS.reasons("New: Mates Pencils #2, 5 % lead.", pencils) == []
    assert CHECKS.reasons("New: Mates Pencils #3, 5 % lead.", pencils) == ["link", "number"]
    film = evidence(title="Now and Then (1995)")
    assert CHECKS.reasons("You may like Now and Then (1995).", film) == []
    assert CHECKS.reasons("You may like this now and then", film) == ["unrelated"]
    assert CHECKS.reasons("You may like It for the night", evidence(title="It", description="a story")) == ["unrelated"]


def test_a_dot_inside_a_word_is_the_catalogues_or_an_address():
    assert CHECKS.reasons("New: Dr.Martens boots", evidence(title="Dr.Martens boots")) == []
    assert CHECKS.reasons("Warm and quiet.New lamp", evidence()) == ["link"]


def test_a_single_comment_grounds_nothing_and_its_numbers_never_do():
    one = evidence(comments=("Seen in Vienna for 30",))
    assert CHECKS.reasons("People in Vienna know this lamp", one) == ["name"]
    two = evidence(comments=("Seen in Vienna for 30", "Vienna, 30"))
    assert CHECKS.reasons("People in Vienna know this lamp", two) == []
    assert CHECKS.reasons("This lamp is yours for 30", two) == ["number"]


def test_names_are_runs_of_capitals_and_end_at_marks():
    assert CHECKS.names("Discover Alpine Trail, Desert Camel and the Old Mill. Winter is here") == [
        ["Alpine", "Trail"], ["Desert", "Camel"], ["Old", "Mill"],
    ]  # fmt: skip


def test_near_duplicates_are_the_later_ones():
    texts = ["See this lamp today", "today see this lamp!", "A lamp for quiet nights", "See this lamp now"]
    assert near_duplicates(texts, 0.8) == [False, True, False, False]
    assert near_duplicates(texts, 0.6) == [False, True, False, True]
    title = "Alpine Trail Winter Snow Camel Nomad Oasis lamp"
    assert near_duplicates([f"New: {title}", f"See: {title}", f"new {title}!"], 0.8, title) == [False, False, True]


def test_no_name_that_is_not_in_honest_evidence_comes_through_a_thousand_hostile_items():
    """The writer does what the worst text asks it to: it names what was injected, in capitals and small letters, with
    invisible letters, and honestly."""
    items, rng = hostile(1000), np.random.default_rng(0)
    passed = 0
    for number, one in enumerate(items):
        name = INJECTED[number % len(INJECTED)]
        honest = grammar.copies(np.array([number % 6]), [re.split(r"\.", one.title)[0] or "Quiet lamp"])[0]
        tries = [honest, honest.replace("lamp", f"lamp by {name}"), f"{name}: {honest}", honest.replace("this", f"this {name.lower()}"),
                 honest.replace("lamp", f"l\u200bamp {name[0]}\u200b{name[1:]}"), ATTACKS[number % len(ATTACKS)].format(name=name)]  # fmt: skip
        for text in rng.permutation(np.array(tries, dtype=object)):
            if CHECKS.reasons(text, one):
                continue
            passed += 1
            plain = text.casefold().replace("\u200b", "")
            assert not any(part.casefold() in plain for part in INJECTED), (text, one)
            assert not re.search(r"\d", plain)
    assert passed >= 900


def test_everyday_words_are_a_file_and_hold_no_names_or_numbers(tmp_path):
    words = everyday_words(None)
    assert len(words) > 1500 and not {"rolex", "gucci", "iphone", "two", "fifty", "half", "free", "amazon"} & words
    assert all(word == word.casefold() and word.isalpha() for word in words)
    assert ENGLISH.read_text().split() == sorted(words)
    (tmp_path / "german.txt").write_text("diese für ist schön Abende")
    german = CopyChecks(CopyLimits(words=tmp_path / "german.txt"))
    assert german.reasons("Diese Lampe ist schön für Abende", evidence(title="Lampe")) == []
    assert german.reasons("Diese Lampe ist schön für Rolex", evidence(title="Lampe")) == ["name"]
    assert "word" in german.reasons("this lamp is lovely", evidence(title="Lampe"))
    with pytest.raises(ConfigError, match="everyday words"):
        CopyChecks(CopyLimits(words=tmp_path / "none.txt"))
