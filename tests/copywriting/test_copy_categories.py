"""Categories are files: packaged ones, those of a domain, one's own."""

from __future__ import annotations

import pytest
from tests.copywriting.evidences import evidence

from taiji.copywriting.copy_categories import PACKAGED, TITLE, copy_categories, copy_prompt
from taiji.copywriting.copy_checks import CopyChecks
from taiji.copywriting.settings import CopyLimits, CopywritingSettings
from taiji.core.errors import ConfigError

NAMES = ["emotional", "factual", "personal", "question", "suspense"]


def test_five_are_packaged_and_a_domain_has_its_own_wording():
    shop, films = (copy_categories(CopywritingSettings(), domain) for domain in ("shop", "films"))
    assert [one.name for one in shop] == NAMES == [one.name for one in films]
    assert (
        "how the story ends" in films[-1].prompt.read_text() and "how the story ends" not in shop[-1].prompt.read_text()
    )
    assert films[-1].examples != shop[-1].examples and all(len(one.examples) == 4 for one in (*shop, *films))


@pytest.mark.parametrize("path", sorted(PACKAGED.rglob("*.j2")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_prompt_tells_the_facts_and_the_rules(path):
    settings = CopywritingSettings(templates=path.parent, comments=1)
    (category,) = copy_categories(settings.model_copy(update={"categories": (path.stem,)}), "shop")
    told = evidence(comments=("newest words", "older words"), price="12.5")
    prompt = copy_prompt(told, category, settings)
    text = "\n".join(message["content"] for message in prompt.messages)
    assert all(
        part in text
        for part in ("title: Alpine Trail lamp", "price: 12.5", "newest words", "110 characters", "miracle", "…")
    )
    assert "older words" not in text and prompt.prefill and [m["role"] for m in prompt.messages] == ["system", "user"]


@pytest.mark.parametrize("path", sorted(PACKAGED.rglob("*.txt")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_example_sentence_passes_the_checks(path):
    checks = CopyChecks(CopyLimits())
    for line in path.read_text().splitlines():
        assert checks.reasons(line.replace(TITLE, "Alpine Trail lamp"), evidence()) == [], line


def test_a_new_file_is_a_new_category_and_one_of_the_same_name_replaces(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "rhyme.j2").write_text("[user]\nRhyme on: {% for fact in facts %}{{ fact }}{% endfor %}\n")
    (tmp_path / "shop" / "factual.j2").write_text("[user]\nMine.\n")
    settings = CopywritingSettings(templates=tmp_path)
    found = {one.name: one for one in copy_categories(settings, "shop")}
    assert sorted(found) == sorted([*NAMES, "rhyme"]) and found["rhyme"].examples == ()
    assert copy_prompt(evidence(), found["rhyme"], settings).messages == [
        {"role": "user", "content": "Rhyme on: title: Alpine Trail lamp"}
    ]
    assert found["factual"].prompt.parent == tmp_path / "shop"
    assert {one.name: one for one in copy_categories(settings, "films")}["factual"].prompt.parent == PACKAGED


def test_unknown_categories_and_examples_without_the_item_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="no prompt file"):
        copy_categories(CopywritingSettings(categories=("rhyme",)), "shop")
    (tmp_path / "flat.j2").write_text("[user]\nx\n")
    (tmp_path / "flat.txt").write_text("No item here.\n")
    with pytest.raises(ConfigError, match="does not contain the placeholder"):
        copy_categories(CopywritingSettings(templates=tmp_path), "shop")
