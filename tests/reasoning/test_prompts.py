"""Prompts: within the budget, from templates, and never a word of the target or the future."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.reasoning.conftest import START, build, examples_of
from tests.tiny import write_shop

from taiji.core.errors import ConfigError, TaijiError
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.data.sources import load_source
from taiji.language.chat import render
from taiji.reasoning.answers import parse
from taiji.reasoning.audit import decoys_of
from taiji.reasoning.guards import find_mentions
from taiji.reasoning.prompts import (
    item_line,
    item_lines,
    prompt_as_asked,
    shorten,
    student_prompt,
    student_prompts,
    teacher_prompt,
    true_answers,
)
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import known_answers
from taiji.reasoning.settings import PromptSettings


def tokens(lm, prompt) -> int:
    return len(lm.tokenizer(render(lm, prompt.messages), add_special_tokens=False).input_ids)


@given(user=st.integers(0, 5), day=st.integers(0, 14), budget=st.integers(300, 1200), limit=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_budget_drops_the_oldest_first(dataset, lm, user, day, budget, limit):
    as_of = int((START + timedelta(days=day)).timestamp() * 1e6)
    chosen = PromptSettings(token_budget=budget, history_limit=limit)
    prompt = student_prompt(dataset, user, as_of, chosen, lm.tokenizer)
    items, _ = dataset.history.before(user, as_of)
    assert prompt.kept + prompt.dropped == len(items)
    assert prompt.kept <= limit
    assert tokens(lm, prompt) <= budget
    assert prompt_as_asked(dataset, user, as_of, chosen, prompt.kept) == prompt, (
        "the number of interactions is all one has to keep"
    )
    shown = [line[2:] for line in prompt.messages[-1]["content"].splitlines() if line.startswith("- ")]
    assert [s.split("; price")[0] for s in shown] == [item_line(dataset, int(i)) for i in items[: prompt.kept]]
    if 0 < prompt.kept < min(limit, len(items)):  # one more would not have fitted
        more = student_prompt(
            dataset,
            user,
            as_of,
            chosen.model_copy(update={"token_budget": 5000, "history_limit": prompt.kept + 1}),
            lm.tokenizer,
        )
        assert tokens(lm, more) > budget


@given(
    user=st.integers(0, 5),
    place=st.integers(1, 11),
    planted=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.integers(0, 29)), max_size=20),
)
@settings(max_examples=25, deadline=None)
def test_nothing_of_the_target_or_the_future_reaches_the_student(lm, dataset, prompts, user, place, planted):
    example = examples_of(dataset, place).row(user, named=True)
    as_of = example["as_of"]
    now = START + timedelta(days=place, hours=user)
    future = pl.DataFrame(
        [(u, i, now + timedelta(hours=h), 1) for u, h, i in planted],
        schema={"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Datetime("us"), "click": pl.Int64},
        orient="row",
    )
    prompt = student_prompt(dataset, user, as_of, prompts, lm.tokenizer)
    assert student_prompt(build(extra=future), user, as_of, prompts, lm.tokenizer) == prompt
    past = set(dataset.history.before(user, as_of)[0].tolist())
    text = " ".join(m["content"] for m in prompt.messages)
    for item in set(range(dataset.n_items)) - past:
        assert f"item{item}word" not in text


@pytest.fixture(
    scope="module",
    params=["movielens", "amazon", "generic", pytest.param("completejourney", marks=pytest.mark.integration)],
)
def tables(request, tmp_path_factory) -> Tables:
    """Every kind of source, cut down to two dozen users with some history, their items and 200 others."""
    if request.param == "completejourney":
        loaded = load_source("completejourney", users=40, non_clicks=1)
    elif request.param == "generic":
        loaded = load_source(write_shop(tmp_path_factory.mktemp("shop")))
    else:
        folder = {"movielens": "ml-latest-small", "amazon": "amazon-office"}[request.param]
        loaded = load_source(f"{request.param}:{request.getfixturevalue('public_data') / folder}")
    counts = (
        loaded.events.filter(pl.col("click") == 1)["user_id"]
        .value_counts()
        .filter(pl.col("count") >= 3)
        .sort("user_id")
    )
    users = counts["user_id"].sample(24, seed=0) if len(counts) > 24 else counts["user_id"]
    events = loaded.events.filter(pl.col("user_id").is_in(users.implode()))
    unseen = loaded.items.filter(~pl.col("item_id").is_in(events["item_id"].unique().implode()))
    items = unseen["item_id"].sample(min(200, len(unseen)), seed=0).implode()
    return replace(
        loaded,
        users=loaded.users.filter(pl.col("user_id").is_in(users.implode())),
        items=loaded.items.filter(
            ~pl.col("item_id").is_in(unseen["item_id"].implode()) | pl.col("item_id").is_in(items)
        ),
        events=events,
    )


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_of_the_target_or_the_future_in_prompts_of_any_source(lm, tables, data):
    """Whatever happens at or after the cutoff, to whomever: the prompt is the same to the letter and shows only the
    past."""
    clean = Dataset.from_tables(tables)
    history, chosen = clean.history, PromptSettings(token_budget=1500)
    user = data.draw(st.integers(0, clean.n_users - 1), label="user")
    at = data.draw(st.integers(int(history.offsets[user]) + 1, int(history.offsets[user + 1]) - 1), label="place")
    as_of, target = int(history.times[at]), int(history.items[at])
    prompt = student_prompt(clean, user, as_of, chosen, lm.tokenizer)
    text = "\n".join(m["content"] for m in prompt.messages)
    past = {item_line(clean, int(i)) for i in history.before(user, as_of)[0]}
    assert {line[2:].split("; price")[0] for line in text.splitlines() if line.startswith("- ")} <= past
    future = {int(i) for i in history.items[at : history.offsets[user + 1]]}
    for item in {target, *future}:
        assert item_line(clean, item) in past or item_line(clean, item) not in text
    planted = data.draw(
        st.lists(
            st.tuples(st.integers(0, clean.n_users - 1), st.integers(0, 10**15), st.integers(0, clean.n_items - 1)),
            max_size=8,
        ),
        label="planted",
    )
    rows = tables.events.head(1).sample(len(planted) + 1, with_replacement=True, seed=0).with_columns(
        user_id=clean.users["user_id"].gather([user, *(u for u, _, _ in planted)]),
        item_id=clean.items["item_id"].gather([target, *(i for _, _, i in planted)]),
        timestamp=pl.Series([as_of, *(as_of + later for _, later, _ in planted)]).cast(pl.Datetime("us")),
        matured_at=pl.Series([as_of, *(as_of + later for _, later, _ in planted)]).cast(pl.Datetime("us")),
        click=pl.lit(1, tables.events.schema["click"]),
    )  # fmt: skip
    more = Dataset.from_tables(
        replace(
            tables,
            events=pl.concat([tables.events, rows.cast(dict(tables.events.schema)).select(tables.events.columns)]),
        )
    )
    assert student_prompt(more, user, as_of, chosen, lm.tokenizer) == prompt


@pytest.mark.parametrize("domain", ["shop", "films", "books"])
def test_every_domain_has_its_words(lm, domain):
    data = build(domain)
    prompt = student_prompt(data, 0, 2**62, PromptSettings(token_budget=900), lm.tokenizer)
    text = prompt.messages[-1]["content"]
    assert {"shop": "shopper", "films": "viewer", "books": "customer"}[domain] in text
    assert "Profile: age: 20-29" in text
    assert "<answer>" in text
    assert (
        "Profile"
        not in student_prompt(data, 1, 2**62, PromptSettings(token_budget=900), lm.tokenizer).messages[-1]["content"]
    )
    assert "{" not in text


def with_depth(depth: int) -> Dataset:
    """The small shop with so many category levels, every item having all of them."""
    data = build()
    names = [f"category_l{level + 1}" for level in range(depth)]
    items = data.items.drop("category_l1", "category_l2", "category_l3")
    kinds = [pl.format("{} of item {}", pl.lit(name), pl.col("item") % (2 + level)) for level, name in enumerate(names)]
    return replace(
        data, items=items.with_columns(kind.alias(name) for kind, name in zip(kinds, names)), given_levels=None
    )


@pytest.mark.parametrize("depth", [0, 1, 3, 5])
def test_prompts_and_answers_are_as_deep_as_the_data(lm, depth):
    data = with_depth(depth)
    assert len(data.levels) == depth
    text = student_prompt(data, 0, 2**62, PromptSettings(token_budget=2000), lm.tokenizer).messages[-1]["content"]
    wanted = ["Item title: ...", *(f"{'Category ' if n == 1 else ''}L{n}: ..." for n in range(1, depth + 1))]
    assert f"<answer>{'; '.join(wanted)}</answer>" in text
    line = item_line(data, 1)
    assert line.count(" of item ") == depth and item_lines(data)[1] == line
    read = parse(f"<think>x</think><answer>{line}</answer>", depth)
    assert read.well_formed and read.title == "item1word thing1 (2011)"
    assert read.levels == tuple(data.items[name][1] for name in data.levels)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_rationales_are_written_and_judged_at_any_depth(lm, depth):
    data = with_depth(depth)
    examples = examples_of(data)
    chosen = PromptSettings(token_budget=2000)
    written = RuleWriter(chosen).write(data, examples, 2, 0)
    assert (written["rationale"].str.len_chars() > 20).all()
    assert written["rationale"].str.contains("category_l1").any() == (depth > 0)
    known = known_answers(data, examples, chosen, lm.tokenizer)
    assert known["levels"].list.len().unique().to_list() == [depth]
    for title, levels, prompt, rationale in zip(
        known["title"], known["levels"], known["prompt"], written["rationale"][::2], strict=True
    ):
        assert find_mentions(rationale, title, levels.to_list(), prompt).title == ()
        if depth == 5:
            assert find_mentions(f"It is {levels[4]}.", title, levels.to_list(), "").levels == (*[False] * 4, True)
    decoys = decoys_of(data, 1, 3, np.random.default_rng(0))
    assert len(decoys) == (3 if depth else 0)
    if depth:
        assert data.items[data.levels[-1]].gather(decoys).unique().to_list() == [data.items[data.levels[-1]][1]]


def test_a_domain_is_a_folder_of_templates(lm, tmp_path):
    data = replace(build(), domain="cars")
    with pytest.raises(ConfigError, match=r"(?s)books, films, shop.*found: domain cars.*data\.domain"):
        student_prompt(data, 0, 2**62, PromptSettings(), lm.tokenizer)
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "student.j2").write_text("[user]\nWhich car next? {{ form }}\n")
    own = PromptSettings(templates=tmp_path)
    found = student_prompt(data, 0, 2**62, own, lm.tokenizer).messages[-1]["content"]
    assert found == "Which car next? Item title: ...; Category L1: ...; L2: ...; L3: ..."
    with pytest.raises(ConfigError, match=r"(?s)teacher\.j2.*books, films, shop"):
        teacher_prompt(data, 0, 2**62, own, lm.tokenizer, None)
    with pytest.raises(ConfigError, match=r"books, cars, films, shop"):
        student_prompt(replace(data, domain="boats"), 0, 2**62, own, lm.tokenizer)


def test_the_teacher_sees_the_same_and_the_answer(dataset, examples, lm):
    chosen = PromptSettings(token_budget=400)
    user, as_of, target = examples.select("user", "as_of", "target").row(2)
    student = student_prompt(dataset, user, as_of, chosen, lm.tokenizer)
    teacher = teacher_prompt(dataset, user, as_of, chosen, lm.tokenizer, target)
    blind = teacher_prompt(dataset, user, as_of, chosen, lm.tokenizer, None)
    assert (teacher.kept, teacher.dropped) == (student.kept, student.dropped)
    assert item_line(dataset, target) in teacher.messages[-1]["content"]
    assert item_line(dataset, target) not in blind.messages[-1]["content"]
    assert teacher.prefill


def test_rendered_prompts_in_the_order_of_the_examples(dataset, examples, lm, prompts):
    frame = student_prompts(dataset, examples[::-1], prompts, lm.tokenizer)
    assert frame["example"].to_list() == examples["example"].to_list()[::-1]
    assert frame["prompt"][0] == render(
        lm, student_prompt(dataset, 5, examples["as_of"][5], prompts, lm.tokenizer).messages
    )


def test_a_user_without_history_still_gets_a_prompt(dataset, lm, prompts):
    prompt = student_prompt(dataset, 0, 0, prompts, lm.tokenizer)
    assert (prompt.kept, prompt.dropped) == (0, 0)


def test_templates_can_be_replaced(dataset, lm, tmp_path: Path):
    (tmp_path / "student.j2").write_text("[user]\nMine: {{ interactions | length }}\n")
    chosen = PromptSettings(token_budget=200, templates=tmp_path)
    assert student_prompt(dataset, 0, 2**62, chosen, lm.tokenizer).messages == [{"role": "user", "content": "Mine: 12"}]
    assert teacher_prompt(dataset, 0, 2**62, chosen, lm.tokenizer, 3).messages[0]["role"] == "system"


@pytest.mark.parametrize("text", ["[user]\n{{ target }}", "[user]\n{% if %}", "[system]\nonly"])
def test_broken_templates_are_explained(dataset, lm, tmp_path, text):
    """The first names the target in the student's template: it is not there to be had."""
    (tmp_path / "student.j2").write_text(text)
    with pytest.raises(TaijiError, match="template"):
        student_prompt(dataset, 0, 2**62, PromptSettings(templates=tmp_path), lm.tokenizer)


def test_a_budget_that_holds_nothing(dataset, lm):
    with pytest.raises(TaijiError, match="token budget"):
        student_prompt(dataset, 0, 2**62, PromptSettings(token_budget=64), lm.tokenizer)


def test_item_lines(dataset):
    lines = item_lines(dataset)
    assert (
        lines[1]
        == item_line(dataset, 1)
        == "Item title: item1word thing1 (2011); Category L1: Kitchen; L2: Kitchen sort1; L3: Kitchen sort1 kind1"
    )
    assert lines[5] == "Item title: item5word thing5 (2015); Category L1: Sports"


@given(st.text(max_size=200), st.integers(8, 60))
@settings(max_examples=100, deadline=None)
def test_shorten(text, characters):
    short = shorten(text, characters)
    assert len(short) <= characters
    assert " ".join(text.split()).startswith(short)


def test_a_set_is_asked_for_and_shown_to_the_teacher_alone(dataset, set_examples, set_prompts, lm):
    user, as_of, items = set_examples.select("user", "as_of", "targets").row(0)
    lines = [item_line(dataset, item) for item in items]
    student = student_prompt(dataset, user, as_of, set_prompts, lm.tokenizer).messages[-1]["content"]
    teacher = teacher_prompt(dataset, user, as_of, set_prompts, lm.tokenizer, items).messages[-1]["content"]
    blind = teacher_prompt(dataset, user, as_of, set_prompts, lm.tokenizer, None).messages[-1]["content"]
    assert "up to 3 of them" in student and student.count("Item title: ...") == 2
    past = {item_line(dataset, int(item)) for item in dataset.history.before(user, as_of)[0]}
    for line in lines:
        assert f"- {line}" in teacher
        assert line in past or (line not in student and line not in blind)


def test_true_answers_of_sets_hang_on_their_example_alone(dataset, set_examples, set_prompts):
    texts = true_answers(dataset, set_examples, set_prompts, orders=3)
    for orders, items in zip(texts, set_examples["targets"]):
        lines = {item_line(dataset, item) for item in items}
        assert all(set(order.split("\n")) == lines for order in orders)
    assert any(len(set(orders)) > 1 for orders in texts)
    assert true_answers(dataset, set_examples[2:], set_prompts, orders=3) == texts[2:]
    fewer = true_answers(dataset, set_examples, set_prompts, orders=2, most=2)
    assert [len(text.split("\n")) for text in fewer[0]] == [2, 2]
    with pytest.raises(TaijiError, match="no sets of next items"):
        true_answers(dataset, set_examples.drop("targets"), set_prompts)


@pytest.mark.parametrize("domain", ["books", "films", "shop"])
def test_every_domain_has_templates_for_sets(domain, set_prompts, lm):
    data = build(domain)
    for target in (None, [1, 2]):
        text = teacher_prompt(data, 0, 2**62, set_prompts, lm.tokenizer, target).messages[-1]["content"]
        assert text and ("item1word" in text.split("newest first")[1]) >= (target is not None)
    assert "one a line" in student_prompt(data, 0, 2**62, set_prompts, lm.tokenizer).messages[-1]["content"]


def test_descriptions_stand_with_the_interactions_and_not_in_the_answer(dataset, lm):
    told = replace(dataset, items=dataset.items.with_columns(description=pl.lit("Sewn; by <hand> in a small town")))
    as_of = int((START + timedelta(days=14)).timestamp() * 1e6)

    def shown(data, characters):
        chosen = PromptSettings(description_characters=characters, token_budget=1200)
        return student_prompt(data, 0, as_of, chosen, lm.tokenizer)

    assert shown(told, 0) == shown(dataset, 0) == shown(dataset, 40)
    lines = [line for line in shown(told, 15).messages[-1]["content"].splitlines() if line.startswith("- ")]
    assert lines and all(line.endswith("; description: Sewn, by (hand)") for line in lines)
    assert item_lines(told) == item_lines(dataset)
