"""Writers of copy: a local model, an endpoint, example sentences."""

from __future__ import annotations

import pytest
from tests.copywriting.evidences import evidence

from taiji.copywriting import copy_writers
from taiji.copywriting.copy_categories import CopyPrompt, copy_categories, copy_prompt
from taiji.copywriting.copy_writers import LocalCopyWriter, RulesCopyWriter, copy_text
from taiji.copywriting.settings import CopywritingSettings
from taiji.core.errors import ConfigError
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import Written

SETTINGS = CopywritingSettings()


def prompts(count: int = 1, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return [
        copy_prompt(evidence(f"i{n}"), c, settings) for n in range(count) for c in copy_categories(settings, "shop")
    ]


@pytest.mark.parametrize(
    ("said", "copy"),
    [
        ('"See this lamp today."', "See this lamp today."),
        ("Sure! Here is a notification:\n\n**See this lamp today.**", "See this lamp today."),
        ("Notification: See this lamp\nAnd more", "See this lamp"),
        ("\n\n1. See   this lamp", "See this lamp"),
        ("<think>Hm.</think>", "Hm."),
        ("  ", ""),
    ],
)
def test_the_copy_is_the_first_line_without_label_and_quotes(said, copy):
    assert copy_text(said) == copy


@pytest.mark.parametrize(
    ("written", "copy"),
    [("you seen it", "Have you seen it"), ("’s lamp", "Have’s lamp"), (", now", "Have, now"), ("'A' lamp", "Have 'A' lamp")],
)  # fmt: skip
def test_what_a_model_writes_behind_a_beginning_joins_it(tiny_lm, monkeypatch, written, copy):
    monkeypatch.setattr(copy_writers, "write", lambda *_, **__: [[Written(written, False)]])
    prompt = CopyPrompt(evidence("i"), prompts()[0].category, [{"role": "user", "content": "x"}], "Have")
    said = LocalCopyWriter(LanguageModel(*tiny_lm, "tiny"), SETTINGS).write([prompt], 1, 0)
    assert said[0][0].text == copy


def test_example_sentences_are_filled_in_and_differ_between_items():
    rows = RulesCopyWriter().write(prompts(4), 3, seed=0)
    assert {len({one.text for one in row}) for row in rows} == {3}
    assert all("Alpine Trail lamp" in one.text and one.ended == "whole" for row in rows for one in row)
    assert len({rows[5 * n][0].text for n in range(4)}) > 1
    assert RulesCopyWriter().write(prompts(4), 3, seed=0) == rows
    assert {len(row) for row in RulesCopyWriter().write(prompts(), 9, seed=0)} == {4}


def test_a_title_with_a_mark_takes_no_full_stop(tmp_path):
    (tmp_path / "odd.j2").write_text("[user]\nx\n")
    (tmp_path / "odd.txt").write_text("New: {title}.\nReady for {title}?\n")
    category = copy_categories(SETTINGS.model_copy(update={"templates": tmp_path, "categories": ("odd",)}), "shop")[0]
    for title, said in (
        ("Oliver!", {"New: Oliver!", "Ready for Oliver!?"}),
        ("Lamp", {"New: Lamp.", "Ready for Lamp?"}),
    ):
        prompt = copy_prompt(evidence(title=title), category, SETTINGS)
        assert {one.text for one in RulesCopyWriter().write([prompt], 2, 0)[0]} == said


def test_a_category_without_examples_and_an_item_without_title(tmp_path):
    (tmp_path / "odd.j2").write_text("[user]\nx\n")
    with pytest.raises(ConfigError, match="no example sentences"):
        RulesCopyWriter().write(prompts(templates=tmp_path, categories=("odd",)), 1, 0)
    untitled = copy_prompt(evidence(title=None, description="A warm lamp"), prompts()[0].category, SETTINGS)
    assert RulesCopyWriter().write([untitled], 1, 0)[0][0].ended == "empty"


def test_a_local_model_writes_n_copies_and_what_the_limit_cut_is_none(tiny_lm, monkeypatch):
    lm = LanguageModel(*tiny_lm, "tiny")
    writer = LocalCopyWriter(lm, CopywritingSettings(max_new_tokens=8, temperature=1.0))
    asked = prompts()[:2]
    first, again = (writer.write(asked, 2, seed=1) for _ in range(2))
    assert first == again and [len(row) for row in first] == [2, 2]
    assert all(one.prompt_tokens > 50 for row in first for one in row)
    said = [[Written(" what it is about", False), Written(" what it", True)], [Written("", False), Written("x", False)]]
    monkeypatch.setattr(copy_writers, "write", lambda *given, **more: said)
    found = writer.write([prompts()[4]] * 2, 2, 0)
    assert [[one.ended for one in row] for row in found] == [["whole", "cut"], ["whole", "whole"]]
    assert found[0][0].text == "You will not guess what it is about" and found[0][1].text == ""
    assert LocalCopyWriter(lm, SETTINGS).version != writer.version
