"""Random small shops, written in random forms with defects of known place: read right, asked about, or refused by name.

A shop is its seed. Play one again with ``python -m tests.shops SEED --shrink``, which also looks for the forms that
matter.
"""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from tests.shops.choices import AXES, PLAIN, alone, draw, unusual
from tests.shops.comparing import differences
from tests.shops.play import ASKED, BAD, ERROR, QUESTION, REFUSED, RIGHT, TOLD, Person, make_shop, play
from tests.shops.writers import write

from taiji.pipeline.initialise import initialise

QUICK, SLOW, BATCH = 25, 2_000, 25
"""Shops of `make test` and of `make test-slow`, and how many a test takes."""


def check(first: int) -> None:
    """Play a batch of shops; fail with those that nobody may be left with, each with the command that plays it
    again."""
    outcomes = [play(seed) for seed in range(first, first + BATCH)]
    bad = [f"{shop}\n  again: python -m tests.shops {shop.seed} --shrink" for shop in outcomes if shop.kind in BAD]
    if bad:
        pytest.fail("\n\n".join(bad), pytrace=False)


@pytest.mark.parametrize("first", range(0, QUICK, BATCH))
def test_no_shop_is_misread_in_silence(first):
    check(first)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, SLOW, BATCH))
def test_no_shop_of_thousands_is_misread_in_silence(first):
    check(first)


NOT_READ = {
    "layout=behaviours, signal=behaviours": TOLD,
    "file=csv.zip": REFUSED,
    "file=colons": REFUSED,
    "encoding=latin-1, words=latin": REFUSED,
    "encoding=cp1252, words=windows": REFUSED,
    "encoding=gb18030, words=chinese": REFUSED,
    "header=none": TOLD,
    "names=nameless": TOLD,
    "time=compact month": REFUSED,
    "signal=action, actions=codes": QUESTION,
    "file=csv.gz, defect=file cut": ERROR,
}
"""Forms that alone keep a shop from being read right, and what comes of it."""


@pytest.mark.slow
@pytest.mark.parametrize("choices", alone(), ids=unusual)
def test_each_form_alone_is_read_right(choices):
    outcome = play(0, choices)
    known = NOT_READ.get(unusual(choices))
    assert outcome.kind == known if known else outcome.kind in (RIGHT, ASKED), outcome


@pytest.fixture
def plain(tmp_path):
    """A plain shop and what `taiji init` made of it."""
    choices = {**PLAIN, "layout": "users", "signal": "click, purchase"}
    shop = make_shop(7, choices)
    written = write(shop, tmp_path / "shop")
    return shop, initialise(tmp_path / "shop", tmp_path, "shop", {}, Person(shop, written, {}).answer)


WRONG = {
    "rows": lambda made: made.events.slice(1),
    "click": lambda made: made.events.with_columns(click=pl.lit(1, pl.Int8)),
    "conversion": lambda made: made.events.with_columns(conversion=pl.lit(None, pl.Int8)),
    "price": lambda made: made.events.with_columns(price=pl.lit(2.0)),
}


@pytest.mark.parametrize("place", WRONG)
def test_a_wrong_log_is_noticed(plain, place):
    shop, made = plain
    assert differences(shop, made) == []
    wrong = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, events=WRONG[place](made.dataset)))
    assert [(found.place, found.told) for found in differences(shop, wrong)] == [(place, False)]


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("titles", {"title": pl.lit("thing")}),
        ("levels", {"category_l1": pl.lit("Group A")}),
        ("item price", {"price": pl.col("price") * 1000}),
        ("item ids", {"item_id": pl.col("item_id") + "x"}),
    ],
)
def test_a_wrong_catalogue_is_noticed(plain, place, change):
    shop, made = plain
    wrong = dataclasses.replace(made.dataset, items=made.dataset.items.with_columns(**change))
    found = differences(shop, dataclasses.replace(made, dataset=wrong))
    assert place in [difference.place for difference in found] and not any(difference.told for difference in found)


def test_a_seed_is_a_shop(tmp_path):
    for folder in ("one", "two"):
        write(make_shop(11, draw(11)), tmp_path / folder)
    one, two = ([path.read_bytes() for path in sorted((tmp_path / f).rglob("*.*"))] for f in ("one", "two"))
    assert one == two and one


def test_a_plain_shop_is_read_right():
    assert play(3, PLAIN).kind == RIGHT and unusual(PLAIN) == "all plain"


def test_each_form_is_drawn():
    drawn = {(axis, form) for seed in range(SLOW) for axis, form in draw(seed).items()}
    missing = {(axis, form) for axis, (_, forms) in AXES.items() for form in forms} - drawn
    assert not missing and set(BAD)
