"""The reasons for which a stage is made again, in words."""

from __future__ import annotations

import pytest

from taiji.pipeline.changes import changes

BEFORE = {
    "settings": {"size": {"chunk": 4, "users": None}, "ranking.epochs": 1, "data": {"stages": ["a"]}},
    "inputs": {"data": "1"},
    "outside": None,
    "version": "1.0",
    "seed": 0,
    "class": "package:Class",
    "foreign code": {"shop:Ranker": "1", "shop:Field": "1"},
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {**BEFORE["settings"], "ranking.epochs": 3}}, "settings changed: ranking.epochs: 1 → 3"),
        ({"settings": {**BEFORE["settings"], "size": {"chunk": 4}}}, "settings changed: size.users: removed"),
        (
            {"settings": {**BEFORE["settings"], "data": {"stages": ("a",), "domain": "books"}}},
            "settings changed: data.domain: new, books",
        ),
        ({"inputs": {"data": "2"}}, "inputs changed: data"),
        ({"outside": "x"}, "external files changed (name, size or modification time)"),
        ({"version": "1.1", "seed": 4}, "version of taiji changed: 1.0 → 1.1; seed changed: 0 → 4"),
        ({"class": "package:Class 12ab"}, "code of another package changed: package:Class"),
        ({"foreign code": {"shop:Ranker": "2", "shop:Field": "1"}},
         "code of another package changed: shop:Ranker"),
        ({"settings": {"size": {"chunk": 1, "users": 2}, "ranking.epochs": 2, "data": {"stages": []}}},
         "settings changed: size.chunk: 4 → 1, size.users: None → 2, ranking.epochs: 1 → 2 and 1 more"),
        ({}, "it belongs to another run"),
    ],
)  # fmt: skip
def test_what_differs_is_named(changed, said):
    assert changes(BEFORE, {**BEFORE, **changed}) == said
