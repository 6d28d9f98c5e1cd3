"""The conclusion follows from the paired differences and from the ladder, whichever way they come out."""

import pytest
from tests.reporting.samples import sample_metrics
from tests.reporting.test_ladder_view import rung

from taiji.reporting.conclusion import (
    FEW,
    HARM,
    NO_ROOM,
    NO_TEXTS,
    NOT_ASKED,
    ROOM,
    TEXT_DROPPED,
    TEXT_PAYS,
    conclusion,
    ladder_conclusion,
)
from taiji.reporting.report import render_report
from taiji.reporting.summary import check_metrics

GAIN, LOSS, NOTHING = (0.01, 0.005, 0.015), (-0.01, -0.015, -0.005), (0.001, -0.004, 0.006)


def run(over_none, over_baseline, ladder=()):
    """A run whose model's features have these differences."""
    metrics = {**sample_metrics(), "ladder": [{"log": "mine", "ladder": list(ladder)}] if ladder else []}
    for row in metrics["ranking"]:
        if row["features"] == "taiji" and row["metric"] == "click auc":
            for gap, values in ((row["difference"], over_none), (row["competitors"][0], over_baseline)):
                gap |= dict(zip(("value", "low", "high"), values))
        elif "competitors" in row:
            del row["competitors"]
    return check_metrics(metrics)


def ladder(text=0.0, room=0.0, *, kept=1.0, room_kept=1.0):
    return [
        rung("0 counts"),
        rung("2 text match, wordllama", text, kept=kept),
        rung("2 text match, wordllama: control, permuted texts", 0.5, kept=0.0),
        rung("4 oracle of intents, wordllama: the true next 10", room, kept=room_kept),
    ]


@pytest.mark.parametrize(
    ("over_none", "over_baseline", "said", "advice"),
    [
        (GAIN, GAIN, "Yes: ", "taiji study"),
        (GAIN, NOTHING, "Yes: ", "Use history_mean instead"),
        (LOSS, GAIN, "No: ", NOT_ASKED),
        (NOTHING, NOTHING, "Not shown: ", NOT_ASKED),
        ((0.01, None, None), NOTHING, "Not shown, ", NOT_ASKED),
    ],
    ids=["a gain", "no more than the baseline", "a loss", "nothing", "too few users"],
)
def test_what_the_model_adds(over_none, over_baseline, said, advice):
    found = conclusion(run(over_none, over_baseline))
    assert found is not None and found.answers[0].text.startswith(said) and advice in found.advice
    assert "against history_mean" in found.answers[0].text and "2,301 users" in found.answers[0].text


@pytest.mark.parametrize(
    ("rungs", "advice"),
    [
        (ladder(0.05, 0.03), f"{TEXT_PAYS} {ROOM}"),
        (ladder(0.05, 0.0, room_kept=0.0), TEXT_PAYS),
        (ladder(0.002, 0.03), ROOM),
        (ladder(-0.02, 0.03, kept=0.0), ROOM),
        (ladder(-0.02, -0.03), HARM),
        (ladder(0.002, 0.002), NO_ROOM),
        (ladder(0.05, kept=0.0)[:2], NOT_ASKED),
        ([*ladder()[:2], {**rung("4 oracle", 0.01), "low": None, "high": None}], FEW),
    ],
    ids=["both", "text alone", "a model", "a model, text dropped", "harm", "no room", "no oracle", "few users"],
)
def test_what_the_ladder_advises(rungs, advice):
    assert ladder_conclusion(rungs).advice == advice
    assert conclusion(run(NOTHING, NOTHING, rungs)).advice == advice
    assert conclusion(run(GAIN, GAIN, rungs)).advice != advice, "the model itself comes first"


def test_a_gain_that_some_trainings_drop_is_told_with_both_values():
    """The decision table reads the gain of a ranker that always reads the texts: both must say the same."""
    rungs = ladder(0.02, 0.0, kept=0.67)
    rungs[1] |= {"kept_gain": 0.016, "kept_low": -0.021, "kept_high": 0.053}
    reached = ladder_conclusion(rungs)
    said = reached.answers[0].text
    assert (
        "improve a ranker that always reads them (+0.020" in said and "drops them in 33% of the training runs" in said
    )
    assert "not shown: +0.016 [−0.021, +0.053]" in said and reached.advice == TEXT_DROPPED
    rungs[1]["kept_low"] = 0.001
    assert ladder_conclusion(rungs).advice == TEXT_PAYS


def test_the_answer_says_on_how_many_rows():
    rungs = [{**row, "rows": 1234} for row in ladder(0.05, 0.0)]
    said = ladder_conclusion(rungs).answers[0].text
    assert said.endswith("(1,234 test rows; validation chose to use them in 100% of the training runs).")


def test_other_groups_and_controls_decide_nothing():
    rungs = [{**row, "group": "cold items"} for row in ladder(0.05, 0.05)]
    assert ladder_conclusion(rungs) is None
    assert (
        ladder_conclusion(ladder(0.002, 0.002)).answers[0].text.startswith("The texts of the items do not measurably")
    )


def test_a_run_without_rankers_has_no_conclusion():
    metrics = {**sample_metrics(), "ranking": []}
    assert conclusion(check_metrics(metrics)) is None
    assert 'id="conclusion"' not in render_report(metrics)


def test_the_report_begins_with_it():
    page = render_report({**sample_metrics(), "data": "mine"})
    assert page.index("Do the answers of a language model improve a ranker on mine?") < page.index('class="tiles"')
    assert "What to do next." in page


def test_a_log_without_texts_says_nothing_about_models():
    bare = {"model": "ours", "group": "all", "auc": 0.7, "unread": True}
    rungs = [rung("0 counts"), {**bare, "rung": "2 text match, wordllama"}, {**bare, "rung": "4 oracle of intents"}]
    reached = ladder_conclusion(rungs)
    assert reached.advice == NO_TEXTS and [answer.text for answer in reached.answers] == [
        "Not measured: the items have no texts that distinguish them."
    ]
    assert conclusion(run(NOTHING, NOTHING, rungs)).advice == NO_TEXTS
