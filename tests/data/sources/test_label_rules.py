"""Rules of labels: their syntax, their evaluation with unknown values, and the messages about mistakes."""

from __future__ import annotations

import re
from itertools import product

import polars as pl
import pytest

from taiji.data.sources.label_rules import Combined, Label, column_text, evaluate, parse_rule, value_text

CLICK, BUY = Label("click", "==", 1.0), Label("purchase", "==", 1.0)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("click == 1 or purchase == 1", Combined("or", (CLICK, BUY))),
        (
            "a or b and not c",
            Combined(
                "or",
                (
                    Label("a", None, None),
                    Combined("and", (Label("b", None, None), Combined("not", (Label("c", None, None),)))),
                ),
            ),
        ),
        ("(click==1 OR purchase==1) AND click == 1", Combined("and", (Combined("or", (CLICK, BUY)), CLICK))),
        ("not not_clicked", Combined("not", (Label("not_clicked", None, None),))),
        ("action in (buy, 'pay now', 3)", Label("action", "in", ("buy", "pay now", "3"))),
        ("action not in [skip]", Label("action", "not in", ("skip",))),
        ("mark is not null", Label("mark", "is not null", None)),
        ("mark is empty", Label("mark", "is null", None)),
        ("my column >= 4", Label("my column", ">=", 4.0)),
        ("price(€) > 3", Label("price(€)", ">", 3.0)),
        ("`rock and roll` == yes", Label("rock and roll", "==", "yes")),
        ("genre == Rock & Roll", Label("genre", "==", "Rock & Roll")),
        (
            "action == Add to cart or 是否购买",
            Combined("or", (Label("action", "==", "Add to cart"), Label("是否购买", None, None))),
        ),
        ("x == -1", Label("x", "==", -1.0)),
        ("code in (007, buy, 1.50, 1234567)", Label("code", "in", ("007", "buy", "1.50", "1234567"))),
        ("code in (007, 1.50)", Label("code", "in", (7.0, 1.5))),
    ],
)
def test_what_a_rule_may_say(rule, wanted):
    assert parse_rule(rule) == wanted


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("click = 1", "write == instead of ="),
        ("a && b", "write and instead of &&"),
        ("a | b", "write or instead of |"),
        ("1 <= x", "write the column first"),
        ("x > 1 < 5", "with `and`"),
        ("a and", "expected a column, found the end"),
        ("(a or b", "expected `)`"),
        ("a)", "expected `and`, `or` or the end, found ')'"),
        ("a or or b", "found 'or b'"),
        ("a in ()", "expected a value"),
        ("a in (1, 2", "expected `,` or `)`"),
        ("a is 3", "expected `null`"),
        ("a == 'it", "cannot be read"),
        ("rating > high", "requires a number, found 'high'"),
        ("stars >= 4,5", "found '4,5'"),
        (" ", "empty"),
    ],
)
def test_a_mistake_is_explained(rule, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_rule(rule)


def test_three_valued_logic():
    """The truth tables of Kleene: unknown only where the answer hangs on what is not known."""
    values = [True, False, None]
    rows = list(product(values, values))
    frame = pl.DataFrame({"a": [a for a, _ in rows], "b": [b for _, b in rows]})

    def found(rule):
        return evaluate(parse_rule(rule), lambda test: frame[test.column]).to_list()

    assert found("a or b") == [True if True in row else None if None in row else False for row in rows]
    assert found("a and b") == [False if False in row else None if None in row else True for row in rows]
    assert found("not a") == [None if a is None else not a for a, _ in rows]


@pytest.mark.parametrize(
    "name", ["clicked", "my column", "rock and roll", "是否点击", "price(€)", "in", "a>b", "x,y", "5", "not seen"]
)
def test_a_column_is_written_so_that_it_is_read_again(name):
    assert parse_rule(column_text(name)).columns == (name,)
    assert parse_rule(f"{column_text(name)} == 1 or {column_text(name)}").columns == (name,)
    assert parse_rule(f"not {column_text(name)}").columns == (name,)


@pytest.mark.parametrize("value", ["buy", "add to cart", "a, b", "it's", "4", "or", "a)", "点击", "==", "x y or z"])
def test_a_value_is_written_so_that_it_is_read_again(value):
    assert parse_rule(f"a == {value_text(value)}") == Label("a", "==", value)
    assert parse_rule(f"a in ({value_text(value)}, z)") == Label("a", "in", (value, "z"))
