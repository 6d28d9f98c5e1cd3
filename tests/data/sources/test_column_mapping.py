from __future__ import annotations

import pytest

from taiji.core.errors import TaijiError
from taiji.data.sources.column_mapping import read_mapping
from taiji.data.sources.label_rules import Label, parse_rule

GOOD = """
items: {file: i.csv, item_id: a, title: b}
events: {file: e.csv, user_id: u, item_id: a, timestamp: t}
"""


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("rating >= 4", Label("rating", ">=", 4.0)),
        ("price<1e3", Label("price", "<", 1000.0)),
        ("action == buy", Label("action", "==", "buy")),
        ("action != 'Add to cart'", Label("action", "!=", "Add to cart")),
        ("code == '4'", Label("code", "==", "4")),
        (" clicked ", Label("clicked", None, None)),
        (1, Label(None, None, 1.0)),
        (False, Label(None, None, 0.0)),
    ],
)
def test_rules_of_labels(rule, wanted):
    assert parse_rule(rule) == wanted


def test_a_mapping_is_read(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(GOOD)
    mapping = read_mapping(path)
    assert mapping.events.timestamp == "t" and mapping.events.click == 1 and mapping.users is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("title: b", "titel: b"), ["items.title", "items.titel"]),
        (
            GOOD.replace("timestamp: t", "timestamp: t, click: rating > high"),
            ["events.click", "requires a number"],
        ),
        (GOOD.replace("timestamp: t", "timestamp: {column: t, unit: weeks}"), ["unit"]),
        (GOOD.replace("timestamp: t", "timestamp: t, matured_at: x, matures_after_days: 3"), ["not both"]),
        (GOOD.replace("title: b", "title: b, category_l1: c, categories: {column: d}"), ["not both"]),
        ("domain: ../cars\n" + GOOD, ["domain"]),
        ("[1, 2]", ["not a YAML mapping", "list"]),
        ("a: [1", ["Could not read"]),
    ],
)
def test_faults_name_the_file_and_key(tmp_path, text, words):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(TaijiError) as caught:
        read_mapping(path)
    for word in [*words, "m.yaml"]:
        assert word in str(caught.value)


def test_a_missing_mapping_is_a_clear_error(tmp_path):
    with pytest.raises(TaijiError, match=r"no\.yaml"):
        read_mapping(tmp_path / "no.yaml")


@pytest.mark.parametrize("role", ["context", "bias"])
@pytest.mark.parametrize(
    "outcome",
    [
        "click: action == buy",
        "conversion: action == buy",
        "labels: {liked: {column: action == like}}",
        "behaviour: action",
        "price: action",
        "matured_at: action",
        "matured_at: {column: day, clock: action}",
        "position: action",
        "list_id: action",
        "propensity: action",
    ],
)
def test_a_column_that_determines_a_label_cannot_be_context(tmp_path, role, outcome):
    text = f"""
items: {{file: i.csv, item_id: i, title: t}}
events:
  file: e.csv
  user_id: u
  item_id: i
  timestamp: at
  {role}: [action]
  {outcome}
"""
    (tmp_path / "mapping.yaml").write_text(text)
    with pytest.raises(TaijiError, match=f"column action has two roles: it determines .* listed under {role}"):
        read_mapping(tmp_path / "mapping.yaml")


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("items: {file: i.csv, item_id: i, title: t, keep: [title]}", "title"),
        ("items: {file: i.csv, item_id: i, title: t, keep: [item, other]}", "item"),
        ("items: {file: i.csv, item_id: i, title: t, price: price, keep: [price]}", "price"),
        ("items: {file: i.csv, item_id: i, title: t, category_l1: g, keep: [category_l1]}", "category_l1"),
        ("items: {file: i.csv, item_id: i, title: t, categories: {column: g}, keep: [category_l2]}", "category_l2"),
        ("items: {file: i.csv, item_id: i, title: t}\nusers: {file: u.csv, user_id: u, profile: [user]}", "user"),
        ("items: {file: i.csv, item_id: i, title: t}\nusers: {file: u.csv, user_id: u, profile: [user_id]}", "user_id"),
    ],
)
def test_a_kept_column_cannot_have_the_name_of_another(tmp_path, more, name):
    (tmp_path / "mapping.yaml").write_text(f"{more}\nevents: {{file: e.csv, user_id: u, item_id: i, timestamp: at}}\n")
    with pytest.raises(TaijiError, match=f"a column of its own named {name}"):
        read_mapping(tmp_path / "mapping.yaml")
