"""Comparisons by people: which are asked, that none is lost or kept twice, and how they come back as pairs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import polars as pl
import pytest

from taiji.copywriting.copy_pairs import PAIRS
from taiji.copywriting.copy_review import CopyReview, agreement, comparisons, judged_pairs, read_judgements
from taiji.core.errors import ArtifactError, InputError, ResourceError
from taiji.reasoning.review_session import NotWaiting

COPIES = pl.DataFrame(
    {
        "item_id": ["a", "a", "a", "b", "b", "c", "d", "d"],
        "category": ["question", "factual", "factual", "question", "factual", "factual", "factual", "question"],
        "copy": ["A one?", "A two.", None, "B one?", "B two.", "C alone.", "Same.", "Same."],
    }
)
A, B = sorted(comparisons(COPIES, 9, 0), key=lambda one: one.item_id)


def test_every_item_is_asked_about_once_before_any_twice_and_more_keep_the_earlier_ones():
    many = pl.DataFrame(
        {
            "item_id": [f"i{n // 3}" for n in range(60)],
            "category": ["factual"] * 60,
            "copy": [f"copy {n}" for n in range(60)],
        }
    )
    asked = comparisons(many, 999, 3)
    assert len(asked) == 60 == len({one.key for one in asked}) and len({one.item_id for one in asked[:20]}) == 20
    assert asked[:25] == comparisons(many, 25, 3) != comparisons(many, 25, 4)[:25]
    numbers = [int(one.left[5:]) < int(one.right[5:]) for one in asked]
    assert 15 < sum(numbers) < 45, "the earlier copy stands on the left too often"


def test_copies_that_failed_a_check_and_equal_ones_are_not_asked_about():
    assert {(one.item_id, *sorted((one.left, one.right))) for one in (A, B)} == {
        ("a", "A one?", "A two."),
        ("b", "B one?", "B two."),
    }
    assert A.left_category == ("question" if A.left == "A one?" else "factual")
    with pytest.raises(InputError, match="no copies to compare"):
        comparisons(COPIES.filter(pl.col("item_id") == "c"), 3, 0)


def test_a_judgement_is_kept_at_once_with_who_and_when_and_another_sitting_goes_on(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    with CopyReview([A, B], "ada", tmp_path) as sitting:
        assert sitting.waiting() == [A, B]
        sitting.submit(A.key, "left")
        kept = json.loads((tmp_path / "ada.jsonl").read_text())
        assert kept["choice"] == "left" and kept["by"] == "ada" and kept["left"] == A.left and kept["item_id"] == "a"
        assert before <= datetime.fromisoformat(kept["at"]) <= datetime.now(UTC)
        with pytest.raises(NotWaiting):
            sitting.submit(A.key, "right")
        with pytest.raises(NotWaiting):
            sitting.submit("another", "right")
        with pytest.raises(InputError, match="even"):
            sitting.submit(B.key, "both")
        with pytest.raises(ResourceError, match="open"), CopyReview([A], "ada", tmp_path):
            pass
        with CopyReview([A], "bob", tmp_path):
            pass
    with CopyReview([A, B], "ada", tmp_path) as sitting:
        assert sitting.waiting() == [B] and sitting.progress() == {"total": 2, "judged": 1, "waiting": 1}
        sitting.submit(B.key, "even")
        sitting.undo()
        assert sitting.waiting() == [B] and len(read_judgements(sitting.file)) == 1
    with CopyReview([B], "ada", tmp_path) as sitting, pytest.raises(NotWaiting):
        sitting.undo()  # the last one is of another sitting


def test_what_people_chose_comes_back_as_pairs(tmp_path):
    choices = {"ada": ("left", "left"), "bob": ("left", "right"), "cid": ("right", "even"), "dan": ("left", "even")}
    for name, (first, second) in choices.items():
        with CopyReview([A, B], name, tmp_path) as sitting:
            sitting.submit(A.key, first)
            sitting.submit(B.key, second)
    found = judged_pairs(tmp_path)
    assert dict(found.schema) == PAIRS
    assert found.rows() == [
        ("a", A.left, A.right, A.left_category, A.right_category, 4, 1.0)
    ]  # 3 against 1: z = 2 / √4
    assert judged_pairs(tmp_path, 1.01).is_empty() and judged_pairs(tmp_path / "none").is_empty()
    assert agreement(tmp_path) == (0, 2)


def test_sides_do_not_matter_to_a_vote(tmp_path):
    turned = type(A)(A.item_id, A.right, A.left, A.right_category, A.left_category)
    with CopyReview([A], "ada", tmp_path) as one, CopyReview([turned], "bob", tmp_path) as other:
        one.submit(A.key, "left")
        other.submit(turned.key, "right")
    assert judged_pairs(tmp_path).select("winner", "sends").rows() == [(A.left, 2)] and agreement(tmp_path) == (1, 1)


@pytest.mark.parametrize(
    "line",
    [b'{"item_id": "a"', b'{"item_id": "a"}', b"[]", b"\xff\xfe", b'{"item_id":"a","left":"x","right":"y","left_category":"f","right_category":"f","choice":"both","by":"ada","at":"now"}'],
    ids=["torn", "short", "list", "bytes", "choice"],
)  # fmt: skip
def test_a_line_that_is_no_judgement_is_named(tmp_path, line):
    with CopyReview([A], "ada", tmp_path) as sitting:
        sitting.submit(A.key, "left")
    with sitting.file.open("ab") as file:
        file.write(line)
    with pytest.raises(ArtifactError, match=r"ada\.jsonl, line 2"), CopyReview([A, B], "ada", tmp_path):
        pass
    with pytest.raises(ArtifactError, match="line 2"):
        judged_pairs(tmp_path)


def test_the_value_of_a_judgement_that_is_no_text_is_named(tmp_path):
    with CopyReview([A], "ada", tmp_path) as sitting:
        sitting.submit(A.key, "left")
    good = sitting.file.read_bytes()
    sitting.file.write_bytes(re.sub(rb'"at": ?"[^"]*"', b'"at": 5', good))
    with pytest.raises(ArtifactError, match="not text: at 5"):
        judged_pairs(tmp_path)


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a b", "-ada", "@ada"])
def test_a_name_is_a_file_name(tmp_path, name):
    with pytest.raises(InputError, match="file name"):
        CopyReview([A], name, tmp_path)
