"""Numbers of copies: what they count must be what the catalogue counts."""

from __future__ import annotations

import pytest
from tests.copywriting.evidences import evidence

from taiji.copywriting.copy_checks import CopyChecks
from taiji.copywriting.copy_numbers import Counted, counted
from taiji.copywriting.settings import CopyLimits

CHECKS = CopyChecks(CopyLimits())
LAMP = evidence(
    title="Alpine Trail lamp 2022",
    comments=("warm for thirty nights", "thirty, and 9 %"),
    price="12.50", size="40 cm", pack="3 pieces", left="7", tariff="€ 20, -5 °", share="60% wool",
)  # fmt: skip


def test_a_number_stands_with_its_signs_and_words():
    assert counted("New: $40.50 for the 3-piece lamp 2, or 60 % off") == [
        Counted("40.5", frozenset("$"), "", "for"),
        Counted("3", frozenset(), "the", "piece"),
        Counted("2", frozenset(), "lamp", ""),
        Counted("60", frozenset("%"), "or", "off"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Alpine Trail lamp, 40 cm of calm",
        "Alpine Trail lamp for 12.5, at home",
        "Alpine Trail lamp in 3 pieces",
        "a 3-piece Alpine Trail lamp",
        "You will not guess where Alpine Trail lamp 2022 leads…",
        "this lamp 2022 looks lovely",
        "Alpine Trail lamp for €20",
        "Alpine Trail lamp of 60 % wool",
        "Alpine Trail lamp for 20",
        "Alpine Trail lamp for 20, and it is fine",
        "This one could be yours: Alpine Trail lamp",
    ],
)
def test_numbers_of_the_catalogue_pass(text):
    assert CHECKS.reasons(text, LAMP) == []


@pytest.mark.parametrize(
    "text",
    [
        "Alpine Trail lamp, 40 % off",
        "Alpine Trail lamp 12.50 % off",
        "Alpine Trail lamp for $40",
        "Alpine Trail lamp for $ 20",
        "Alpine Trail lamp, only 3 left",
        "Alpine Trail lamp, 7 days",
        "Alpine Trail lamp, -40 cm",
        "Alpine Trail lamp, the € lamp",
        "Alpine Trail lamp, one left",
        "Alpine Trail lamp, only one",
        "Alpine Trail lamp, a couple left",
        "Alpine Trail lamp for zero",
        "Alpine Trail lamp for thirty nights",
        "Alpine Trail lamp for 9 %",
        "Alpine Trail lamp for 三 days",
        "Alpine Trail lamp ➂",
        "Alpine Trail lamp for ٣ days",
        "Alpine Trail lamp ½ off",
        "Alpine Trail lamp for Ⅻ days",
        "Alpine Trail lamp since 40.",
        "Alpine Trail lamp from 60",
        "Alpine Trail lamp of 60 wool",
        "2021 Alpine Trail lamp",
        "the 2022 days of this lamp",
    ],
)
def test_other_numbers_do_not(text):
    found = CHECKS.reasons(text, LAMP)
    assert {"number", "name"} & set(found), found


def test_a_title_that_is_a_number_may_be_said():
    book = evidence(title="1984", description="A dark story.")
    assert CHECKS.reasons("You will not guess where 1984 leads", book) == ["unrelated"]
    assert CHECKS.reasons("1984: a dark story you will not forget", book) == []
