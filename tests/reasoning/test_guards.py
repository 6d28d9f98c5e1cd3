"""Lexical guards on texts that do and do not give the answer away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.reasoning.guards import MASK, find_mentions, find_set_mentions, tokens, words

HISTORY = "Bought: - Item title: FLUID MILK WHITE ONLY; Category L1: GROCERY; L2: FLUID MILK PRODUCTS; L3: FLUID MILK WHITE ONLY"
FILM = ("Gangs of New York (2002)", ["Crime", "Drama", ""])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("They will like Gangs of New York next.", "exact"),
        ("They will like GANGS OF NEW YORK!", "exact"),
        ("They will like Gangs off New Yorck next.", "fuzzy"),
        ("A gangs film of the old New York.", "subsequence"),
        ("Tales of New York attract them.", "3-gram"),
        ("York has new films on gangs.", "words"),
    ],
)
def test_the_title_is_found(text, kind):
    found = find_mentions(text, *FILM, HISTORY)
    assert kind in found.title
    assert "york" not in words(found.masked)
    assert MASK in found.masked


@pytest.mark.parametrize(
    "text",
    [
        "They like crime films set in cities.",
        "A new film of the kind they like.",
        "",
        "Something of drama, with gangsters.",
    ],
)
def test_the_title_is_not_seen_where_it_is_not(text):
    found = find_mentions(text, *FILM, HISTORY)
    assert found.title == ()
    assert found.masked == text


def test_what_the_history_holds_is_no_leak():
    found = find_mentions(
        "They buy fluid milk white only, always.",
        "FLUID MILK WHITE ONLY",
        ["GROCERY", "FLUID MILK PRODUCTS", "FLUID MILK WHITE ONLY"],
        HISTORY,
    )
    assert found.title == ()
    assert found.levels == (False, False, False)
    assert found.masked == "They buy fluid milk white only, always."
    assert found.recall == 1.0


def test_levels_are_judged_apart():
    found = find_mentions(
        "PRODUCE and APPLES, even GALA APPLES RED, fit.",
        "JUICY FRUIT",
        ["PRODUCE", "APPLES", "GALA APPLES RED"],
        HISTORY,
    )
    assert found.levels == (True, True, True)
    assert found.masked == "PRODUCE and APPLES, even something, fit."
    assert find_mentions("GROCERY again.", "JUICY FRUIT", ["GROCERY", "", ""], HISTORY).levels == (False, False, False)


def test_a_level_that_stands_in_the_title_is_a_level():
    title, levels = "Sour Creams (Milk by-Products), 24 oz", ["Grocery", "Milk by-Products", "Sour Creams"]
    found = find_mentions("A new product from Grocery / Milk by-Products would fit.", title, levels, "")
    assert found.title == ()
    assert found.levels == (True, True, False)
    assert "3-gram" in find_mentions("Something of by-Products, 24 oz, would fit.", title, levels, "").title
    assert find_mentions(
        "A need in Milk by-Products.", "Milk by-Products", levels, ""
    ).title  # the level is the whole title


@pytest.mark.parametrize(
    "text",
    [
        "This is the ground truth.",
        "what they actually bought",
        "the target item",
        "The correct answer fits",
        "the next purchase is near",
    ],
)
def test_phrases_that_give_the_writer_away(text):
    assert find_mentions(text, *FILM, HISTORY).forbidden


@pytest.mark.parametrize(
    "text", ["They actually like milk.", "The items show a pattern.", "Next they may look for bread."]
)
def test_phrases_that_do_not(text):
    assert not find_mentions(text, *FILM, HISTORY).forbidden


title_words = st.lists(
    st.sampled_from(["quartz", "lantern", "of", "the", "velvet", "harbour", "nine"]), min_size=1, max_size=5
).map(" ".join)


@given(title=title_words, before=st.text(max_size=30), after=st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_a_planted_title_never_survives_the_mask(title, before, after):
    if not set(words(title)) - {"of", "the"}:
        return
    found = find_mentions(f"{before} {title} {after}", title, [], "")
    assert found.title
    assert (
        not {"quartz", "lantern", "velvet", "harbour", "nine"}
        & set(words(title))
        & set(words(found.masked)) - set(words(before + " " + after))
    )


@given(st.text(max_size=80), st.text(max_size=30), st.lists(st.text(max_size=10), max_size=3), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_handled(rationale, title, levels, history):
    found = find_mentions(rationale, title, levels, history)
    assert len(found.levels) == 3
    assert 0 <= found.recall <= 1


def test_each_of_several_targets_is_looked_for_by_the_rules_of_one():
    items = [("Heat (1995)", ["Crime", "Drama", "Heist"]), ("Velvet Harbour", ["Drama", "", "Noir"])]
    found = find_set_mentions("They like noir, so Velvet Harbour fits, and heat too.", items, "")
    one, other = (find_mentions("They like noir, so Velvet Harbour fits, and heat too.", *item, "") for item in items)
    assert set(found.title) == {*one.title, *other.title} and "exact" in found.title
    assert found.levels == tuple(a or b for a, b in zip(one.levels, other.levels))
    assert not {"velvet", "harbour", "noir", "heat"} & set(words(found.masked))
    assert find_set_mentions("They like old films.", items, "").masked == "They like old films."
    assert find_set_mentions("A heist.", items[:1], "") == find_mentions("A heist.", *items[0], "")
    told = find_set_mentions("The next purchases are clear.", items, "")
    assert told.forbidden == ("next purchases are",)


SEEN = "他买过：- 商品：金龙鱼大豆油；类别：粮油"


@pytest.mark.parametrize(
    ("text", "title", "kind"),
    [
        ("他可能会买蒙牛纯甄酸奶，因为喜欢乳制品。", "蒙牛纯甄酸奶", "exact"),
        ("他可能会买蒙牛纯真酸奶饮品，因为喜欢乳制品。", "蒙牛纯甄酸奶饮品", "fuzzy"),
        ("蒙牛的纯甄牌酸奶很适合他。", "蒙牛纯甄酸奶", "subsequence"),
        ("他喜欢纯甄风味酸奶。", "蒙牛纯甄风味酸奶原味", "3-gram"),
        ("次はきっと明治ブルガリアヨーグルトを買う。", "明治ブルガリアヨーグルト", "exact"),
        ("다음에는 서울우유초코맛을 살 것이다.", "서울우유초코맛", "exact"),
        ("Next is 蒙牛 Deluxe 纯牛奶, surely.", "蒙牛 Deluxe 纯牛奶", "exact"),
    ],
)
def test_a_title_is_found_without_spaces_between_words(text, title, kind):
    found = find_mentions(text, title, [], SEEN)
    assert kind in found.title and MASK in found.masked
    assert not find_mentions(found.masked, title, [], SEEN).title


@pytest.mark.parametrize(
    "text", ["他喜欢乳制品，也许会买酸奶。", "他会再买金龙鱼大豆油。", "他想喝牛奶，蒙古风味的。", ""]
)
def test_a_category_of_a_title_without_spaces_is_no_title(text):
    found = find_mentions(text, "蒙牛纯甄酸奶", ["乳制品", "酸奶", ""], SEEN)
    assert found.title == () and found.masked == text


def test_words_and_characters_are_compared_together():
    assert tokens("iPhone的Pro版 don't 東京タワー") == ["iphone", "的", "pro", "版", "don't", *"東京タワー"]
