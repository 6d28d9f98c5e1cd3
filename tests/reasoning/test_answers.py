"""The format: what is written is read back, and nothing that a model emits breaks the reader."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.reasoning.answers import (
    answer_span,
    clean,
    ends_in_loop,
    field,
    field_spans,
    format_answer,
    format_completion,
    format_set,
    line_spans,
    parse,
)

names = st.text(min_size=1, max_size=40).filter(lambda t: any(c.isalnum() for c in field(t)))
pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "< Answer >",
        "</ANSWER",
        "Item title:",
        "Category L1:",
        "; L2:",
        "L3:",
        ";",
        "\n",
        "…",
        "<|im_end|>",
        "</s>",
        "milk",
        "🍣",
    ]
)


@given(
    rationale=st.text(max_size=60),
    title=names,
    levels=st.lists(st.none() | st.text(max_size=20), min_size=3, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(rationale, title, levels):
    answer = format_answer(title, levels)
    read = parse(format_completion(rationale, answer))
    assert read.well_formed, read.problem
    assert read.rationale == clean(rationale)
    assert read.text == answer
    assert read.title == field(title)
    assert read.levels == tuple(field(level or "") for level in levels)


@given(st.lists(pieces | st.text(max_size=10), max_size=30).map("".join))
@settings(max_examples=400, deadline=None)
def test_anything_can_be_read(text):
    read = parse(text)
    assert read.well_formed == (read.problem == "")
    assert len(read.levels) == 3
    if read.well_formed:
        assert read.title
        assert len(read.text) <= 400
    for value in (read.rationale, read.text):
        assert value == " ".join(value.split())
        assert "<think>" not in value.lower()
        assert "</answer>" not in value.lower()


GOOD = "<answer>Item title: milk; Category L1: FOOD</answer>"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no answer"),
        ("some text", "no answer"),
        ("<think>a</think>", "no answer"),
        ("<think>a</think><answer></answer>", "empty answer"),
        ("<think>a</think><answer> \n</answer>", "empty answer"),
        ("<think>a</think><answer>Item title: milk", "answer not closed"),
        ("<think>a</think><answer>Item title: milk<answer>x</answer>", "answer not closed"),
        ("<think>a</think><answer>Item title: ...; Category L1: ...</answer>", "no title"),
        ("<think>a</think><answer>milk</answer>", "no title"),
        ("<think>a</think><answer>Item title: " + "x" * 500 + "</answer>", "answer too long"),
        ("<think>a" + GOOD, "rationale not closed"),
        (GOOD + "</think>", ""),
        ("<think>a</think>" + GOOD, ""),
        ("a</think>" + GOOD + " and more <answer>other</answer>", ""),
        ("<THINK>a</Think>\n\n< Answer >Title: milk; l1: FOOD</ANSWER>", ""),
        ("<think></think>" + GOOD, ""),
    ],
)
def test_what_small_models_write(text, problem):
    read = parse(text)
    assert read.problem == problem
    if not problem:
        assert (read.title, read.levels[0]) == ("milk", "FOOD")


def test_the_first_value_of_a_label_counts():
    read = parse("<answer>Item title: a; L2: b; L2: c; Category L1: d</answer>")
    assert (read.title, read.levels) == ("a", ("d", "b", ""))


def test_spans_point_at_the_values():
    answer = format_answer("milk 2%", ["FOOD", None, "DAIRY <x>"])
    assert [answer[a:b] for a, b in field_spans(answer)] == ["milk 2%", "FOOD", "", "DAIRY (x)"]
    start, end = answer_span(" because  of\nthis ", answer)
    assert format_completion(" because  of\nthis ", answer)[start:end] == answer


@pytest.mark.parametrize(
    "token",
    [
        "<|eot_id|>",
        "</s>",
        "<s>",
        "<eos>",
        "<end_of_turn>",
        "<start_of_turn>",
        "<｜end▁of▁sentence｜>",
        "[INST]",
        "[/INST]",
    ],
)
def test_special_tokens_of_models_never_get_into_what_is_taught(token):
    taught = format_completion(
        f"Buys milk.{token} And{token}tea.", format_answer(f"Milk {token} 1 l", [f"{token}Dairy"])
    )
    assert taught == "<think>Buys milk. And tea.</think><answer>Item title: Milk 1 l; Category L1: Dairy</answer>"


SET = [("Heat (1995)", ("Crime", "Drama")), ("Ocean's 11.", ("Comedy", "")), ("Ran", ("War", "Drama"))]


@pytest.mark.parametrize(
    "text",
    [
        "Item title: Heat (1995); Category L1: Crime; L2: Drama\nItem title: Ocean's 11.; Category L1: Comedy\nItem title: Ran; Category L1: War; L2: Drama",
        "1. Item title: Heat (1995); Category L1: Crime; L2: Drama\n2. Item title: Ocean's 11.; L1: Comedy\n3) Title: Ran; L1: War; L2: Drama",
        "- item title: Heat (1995); category l1: Crime; l2: Drama;\n\n- title: Ocean's 11.; L1: Comedy,\n * title: Ran; L1: War; L2: Drama",
        "Item title: Heat (1995); Category L1: Crime; L2: Drama | Item title: Ocean's 11.; Category L1: Comedy | Item title: Ran; Category L1: War; L2: Drama",
        "1. Item title: Heat (1995); Category L1: Crime; L2: Drama 2. Item title: Ocean's 11.; Category L1: Comedy 3. Item title: Ran; Category L1: War; L2: Drama",
        "Item title: Heat (1995); Category L1: Crime; L2: Drama Item title: Ocean's 11.; Category L1: Comedy Item title: Ran; Category L1: War; L2: Drama",
    ],
    ids=["lines", "numbers", "bullets", "bars", "one line", "nothing between"],
)
def test_a_set_is_read_however_its_intents_are_set_apart(text):
    read = parse(f"why</think><answer>{text}</answer>", depth=2, most=8)
    assert read.well_formed, read.problem
    assert [(intent.title, intent.levels) for intent in read.intents] == SET
    assert (read.title, read.levels) == SET[0]


def test_a_set_comes_back_as_it_was_written():
    lines = [format_answer(title, levels) for title, levels in SET]
    text = format_completion("why", format_set(lines))
    read = parse(text, depth=2, most=8)
    assert [intent.text for intent in read.intents] == lines
    assert [text[intent.start : intent.end].strip() for intent in read.intents] == lines
    assert parse(text, depth=2, most=2).intents == read.intents[:2] and parse(text, depth=2, most=2).well_formed
    spans = line_spans(format_set(lines), 2)
    assert [format_set(lines)[a:b] for line in spans for a, b in line[:2]] == [
        part for title, levels in SET for part in (title, levels[0])
    ]


@pytest.mark.parametrize(
    ("text", "problem", "titles"),
    [
        ("why</think><answer>Item title: a\nItem title: b; Cat", "answer not closed", ["a"]),
        ("why</think><answer>milk; FOOD\n2. bread</answer>", "no title", ["milk", "bread"]),
        ("why</think><answer>\n</answer>", "empty answer", []),
        ("why</think><answer>Item title: ; L1: a\nItem title: -</answer>", "no title", []),
        (f"why</think><answer>Item title: a\nItem title: {'b' * 400}</answer>", "answer too long", None),
        ("no tags at all", "no answer", []),
    ],
)
def test_sets_that_are_not_well_formed(text, problem, titles):
    read = parse(text, most=8)
    assert (read.problem, read.well_formed) == (problem, False)
    assert titles is None or [intent.title for intent in read.intents] == titles


def test_a_set_may_be_longer_than_one_answer():
    text = "why</think><answer>" + format_set([f"Item title: {'b' * 90} {n}" for n in range(8)]) + "</answer>"
    assert parse(text, most=8).well_formed and parse(text).problem == "answer too long"


@given(st.text(max_size=200))
def test_any_text_is_read_as_a_set(text):
    read = parse(f"<answer>{text}</answer>", most=4)
    assert len(read.intents) <= 4 and all(intent.title for intent in read.intents)


@given(st.text(min_size=1, max_size=60), st.text(max_size=200), st.integers(0, 59))
def test_a_piece_that_goes_on_to_the_limit_is_a_loop(piece, before, rest):
    times = max(3, 40 // len(piece) + 1)
    assert ends_in_loop(before + piece * times + piece[: rest % len(piece)])


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("Item title: 3M 1" + "0" * 80, True),
        ("Item title: Carpet, 12 oz; Category L1: Home; L2: Carpet\n" * 2 + "Item title: Carpet, 12 oz; Categ", True),
        ("Item title: Carpet, 12 oz; Category L1: Home\nItem title: Carpet, 13 oz; Category L1: Home\nItem title: Carp", False),
        ("The shopper mostly buys HP (1 of the last 3). The list has little from Avery and little from Epson.", False),
        ("0" * 39, False),
        ("", False),
    ],
)  # fmt: skip
def test_loops_of_digits_and_lines(text, loop):
    assert ends_in_loop(text) is loop
