"""The room's benchmarks in their quick form, so that none rots, and what they count."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from benchmarks.leakage import planted, prompts_of, titles_to_plant
from benchmarks.rationale_data import generated_shop, periods
from benchmarks.set_answers import Trial, _others, judged
from tests.quick import run_quick

from taiji.reasoning.prompts import item_lines, true_items


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("leakage", ["--answer", "item", "--answer", "set"]),
        ("selection", []),
        ("set_answers", []),
    ],
    ids=["leakage", "selection", "set answers"],
)
def test_quick_run_holds_its_checks(name, arguments, tmp_path):
    found = run_quick(name, tmp_path, arguments=arguments, public_data=True)
    if name == "leakage":
        assert {row["answer"] for row in found["rows"]} == {"item", "set"}


@pytest.fixture(scope="module")
def asked():
    """A shop, prompts of sets, and a few of its examples."""
    shop, prompts = generated_shop(0), prompts_of("set")
    return shop, prompts, periods(shop, 4, 24, 0, prompts)[1]


def test_a_planted_title_is_one_of_the_set_that_the_prompt_does_not_show(asked, monkeypatch):
    shop, prompts, examples = asked
    titles = shop.items["title"]
    sets = true_items(examples, prompts)
    shown = [f"bought {titles[items[-1]]}" for items in sets]
    sheets = pl.DataFrame({"prompt": shown})
    monkeypatch.setattr("benchmarks.leakage.student_prompts", lambda *given: sheets)
    chosen = titles_to_plant(shop, examples, prompts, None)
    hidden = [{titles[item] for item in items} - {titles[items[-1]]} for items in sets]
    assert all(title in (names or {title}) for title, names in zip(chosen, hidden))
    assert any(title != titles[target] for title, target in zip(chosen, examples["target"])), "not always the target"
    single = titles_to_plant(shop, examples, prompts_of("item"), None)
    assert single == [titles[target] for target in examples["target"]]


def test_planting_hangs_on_the_seed_and_leaves_the_others_as_they_are(asked):
    _, _, examples = asked
    clean = pl.DataFrame({"example": examples["example"], "rationale": ["They like it. They buy it."] * len(examples)})
    titles = [f"Title {place}" for place in range(len(examples))]
    found = planted(examples, titles, clean, 0)
    assert found.equals(planted(examples, titles, clean, 0)) and 0 < found["way"].null_count() < len(found)
    for title, (text, way) in zip(titles, found.select("rationale", "way").iter_rows()):
        assert ("Title" in text or title.split()[1] in text) == (way is not None)


def test_answers_of_sets_are_counted(asked):
    shop, prompts, examples = asked
    lines = item_lines(shop)
    sets = true_items(examples, prompts)
    texts = [
        "".join(("why</think><answer>", "\n".join(lines[item] for item in items[:8]), "</answer>")) for items in sets
    ]
    texts[0] = texts[0].removesuffix("</answer>")  # cut: not well formed
    texts[1] = f"why</think><answer>{lines[sets[1][0]]}\n{lines[sets[1][0]]}</answer>"  # says one item twice
    trial = Trial(shop, prompts, examples, examples, 0)
    values, against = judged(trial, texts)
    assert values["well formed"].tolist() == [0.0] + [1.0] * (len(texts) - 1)
    assert values["coverage"][0] == 0 and np.isnan(values["intents"][0])
    assert values["intents"][1] == 2 and values["different intents"][1] == 1
    assert values["redundancy"][1] == pytest.approx(1)
    complete = np.array([len(items) <= 8 for items in sets[2:]])
    np.testing.assert_allclose(values["coverage"][2:][complete], 1.0, atol=1e-5)
    np.testing.assert_allclose(against["upper bound: the true next items"], 1.0, atol=1e-6)
    popular, control = against["the 3 most popular items"], against["control: another user's answer"]
    assert 0 < popular.mean() < 1 and control[2:].mean() < values["coverage"][2:].mean()


def test_the_control_takes_the_answer_of_another_user():
    users = np.array([3, 3, 5, 3])
    assert (users[_others(users)] != users).all() and _others(np.array([1, 1])).tolist() == [0, 1]
