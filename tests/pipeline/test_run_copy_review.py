"""`taiji review RUN --copies`, and the reward model that its judgements train."""

from __future__ import annotations

import sys

import polars as pl
import pytest
from tests.pipeline.test_run_copy import rules, taiji  # noqa: F401

from taiji import cli
from taiji.core.errors import ArtifactError, TaijiError
from taiji.pipeline import run_copy_review
from taiji.pipeline.run_copy_review import copy_review_summary, open_copy_review


def test_what_people_prefer_is_chosen_next(taiji, tmp_path):  # noqa: F811
    taiji("items.csv", *rules())
    run = tmp_path / "runs" / "items"
    code, _, error = taiji("items.csv", "--reviewed", *rules())
    assert code == 2 and "There are no reviews that prefer" in error and "--copies" in error
    copies = pl.read_parquet(run / "copywriting" / "copies.parquet")
    questions = set(copies.filter(pl.col("category") == "question")["copy"])
    with open_copy_review(run, 0, "ada", 210) as sitting:
        assert len(sitting.waiting()) == 2 * 15 * 14 // 2
        for one in sitting.waiting():
            sides = [one.left in questions, one.right in questions]
            sitting.submit(one.key, "even" if sides[0] == sides[1] else "left" if sides[0] else "right")
        found, strict = copy_review_summary(sitting, 1.0), copy_review_summary(sitting, 1.01)
    assert found["pairs"] == 2 * 3 * 12 and found["waiting"] == 0
    assert strict["pairs"] == 0, "one vote is one standard error, and training would leave these pairs out, too"
    code, out, _ = taiji("items.csv", "--reviewed", *rules("copywriting.exploration=0"))
    assert code == 0 and out.count("(question, score +") == 2
    assert (run / "copywriting" / "reward_model").is_dir()


def test_a_run_without_copies_says_how_to_write_them(tmp_path):
    with pytest.raises(ArtifactError, match="taiji copy"):
        open_copy_review(tmp_path, 0, "ada", 3)


def test_the_command_compares_copies_on_the_page_alone(taiji, tmp_path, monkeypatch, capsys):  # noqa: F811
    taiji("items.csv", *rules())
    served = []
    monkeypatch.setattr(
        run_copy_review, "serve_copy_review", lambda run, session, port, say: served.append(session.name)
    )

    def review(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["taiji", "review", "runs/items", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    assert review("--copies", "--as", "ada", "--count", "4") == (0, said_by("ada")) and served == ["ada"]
    code, error = review("--copies", "--files")
    assert code == 2 and "on the page" in error
    code, error = review()
    assert code == 2 and "no scored rationales" in error and "runs/items --copies" in error


def said_by(name: str) -> str:
    counts = ("total: 4", "judged: 0", "waiting: 4", "pairs: 0", "judged by several: 0", "of these agreed: 0")
    return "\n".join([*counts, f"judgements: runs/items/review/copies/{name}.jsonl", ""])


def test_damaged_copies_are_not_compared(taiji, tmp_path):  # noqa: F811
    taiji("items.csv", *rules())
    file = tmp_path / "runs/items/copywriting/copies.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(TaijiError, match=r"copies\.parquet"):
        open_copy_review(tmp_path / "runs/items", 0, "ada", 3)
