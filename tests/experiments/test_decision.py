"""The decision table says what the intervals say, and no more."""

import pytest

from taiji.experiments.decision import decisions, gap, is_kept, sign

FACTS = {"users": 100, "items": 50, "new_items": 0.1, "history": 5, "distinct_titles": 0.9, "words": 6.0}


def row(rung, gain, half, group="all"):
    ends = {"low": None, "high": None} if half is None else {"low": gain - half, "high": gain + half}
    return {"rung": rung, "group": group, "gain": gain, "auc": 0.7, "against": "x", **ends}


def table(text, control, oracle=0.02):
    rows = [
        {"rung": "0 counts", "group": "all", "auc": 0.6},
        row("1 collaborative", 0.02, 0.005),
        row("2 text match, e", text, 0.005),
        row("2 text match, e: control, permuted texts", control, 0.005),
        row("4 oracle of intents", oracle, 0.005),
        row("2 text match, e", 0.05, 0.01, "cold items"),
    ]
    return {line["question"]: line for line in decisions(FACTS, rows, 1000)}


@pytest.mark.parametrize(
    "text, control, says",
    [
        (0.02, 0.0, "Yes"),
        (0.02, 0.02, "not due to the text alone"),
        (0.001, 0.0, "No gain is shown from text"),
        (-0.02, 0.0, "No: remove"),
    ],
    ids=["gain", "control gains", "null", "loss"],
)
def test_titles(text, control, says):
    assert says in table(text, control)["Are the titles informative?"]["says"]


@pytest.mark.parametrize(
    "text, kept, says",
    [
        (0.02, 1.0, "Yes"),
        (0.02, 0.5, "Yes"),
        (0.02, 0.0, "drops `text_match` and gains nothing"),
        (0.001, 1.0, "No gain is shown from text beyond the log's own signals."),
        (0.001, 0.0, "and rankers with the default fields drop"),
        (-0.02, 0.0, "No: rankers with the default fields drop"),
        (-0.02, 1.0, "No: text does harm here"),
    ],
    ids=[
        "gain, kept",
        "gain, kept by half",
        "gain, dropped",
        "null, kept",
        "null, dropped",
        "loss, dropped",
        "loss, kept",
    ],
)
def test_titles_are_told_by_what_the_ranker_does_with_them(text, kept, says):
    (line,) = [
        line
        for line in decisions(FACTS, [row("2 text match, e", text, 0.005) | {"kept": kept}], 10)
        if "titles" in line["question"]
    ]
    assert says in line["says"] and f"keeps them in {kept:.0%} of the seeds" in line["found"]


@pytest.mark.parametrize(
    "low, says", [(-0.021, "drops it in some of the seeds"), (0.002, "Yes")], ids=["not shown", "shown"]
)
def test_titles_that_some_seeds_drop(low, says):
    """The gain of a ranker that always reads them is not that of the default ranker."""
    kept = {"kept": 0.67, "kept_gain": 0.016, "kept_low": low, "kept_high": 0.053}
    (line,) = [
        line
        for line in decisions(FACTS, [row("2 text match, e", 0.02, 0.005) | kept], 10)
        if "titles" in line["question"]
    ]
    assert says in line["says"]
    assert f"keeps them in 67% of the seeds; over all seeds, it gains +0.0160 [{low:+.4f}, +0.0530]" in line[
        "found"
    ].replace("−", "-")


def test_a_rung_counts_as_kept_as_on_the_ladder():
    """The ladder builds on a rung that at least half of the seeds keep."""
    assert [is_kept({"kept": share}) for share in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert is_kept(None) is None and is_kept({"gain": 0.1}) is None


def test_oracle_and_new_items():
    found = table(0.02, 0.0, oracle=0.0)
    assert "No gain is shown" in found["What could a correct answer about users add?"]["says"]
    new = found["How many interactions are with new items?"]
    assert (
        new["says"].startswith("This share is large")
        and new["says"].endswith("Text pays off there.")
        and "+0.0500 [+0.0400, +0.0600]" in new["found"]
    )
    assert found["How long are the histories?"]["says"].startswith("The histories are short")
    assert "250,000 tokens" in found["What does it cost?"]["found"]


def test_without_an_interval_nothing_is_said():
    few = row("2 text match, e", 0.5, None)
    assert sign(few) is None and "too few users" in gap(few) and gap(None) == "not measured"
    assert decisions(FACTS, [few], 10)[1]["says"] == "Too little data to decide."


def test_the_oracle_names_the_rung_that_it_is_compared_with():
    question = "What could a correct answer about users add?"
    for against, name, says in (
        ("2 text match, e", "over text match", "no real model is always right"),
        ("1 collaborative", "over collaborative", "Whether it could also help a ranker with text was not measured"),
    ):
        oracle = row("4 oracle of intents", 0.02, 0.005) | {"against": against}
        found = {line["question"]: line for line in decisions(FACTS, [oracle], 10)}[question]
        assert name in found["found"] and says in found["says"]


@pytest.mark.parametrize(
    ("gain", "says"),
    [(0.05, "pays off there"), (0.001, "No gain from text is shown there"), (-0.05, "does harm there")],
    ids=["gain", "none", "harm"],
)
def test_what_is_said_of_new_items_follows_from_their_interval(gain, says):
    rows = [row("2 text match, e", 0.02, 0.005), row("2 text match, e", gain, 0.01, "cold items")]
    new = next(line for line in decisions({**FACTS, "new_items": 0.3}, rows, 10) if "new items" in line["question"])
    assert says in new["says"]
