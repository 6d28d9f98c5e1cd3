"""The ladder's sentences and table say what the rungs found, left out or not."""

from taiji.reporting.ladder_view import LEFT_OUT, ladder_view
from taiji.reporting.summary import LogLadder, RunMetrics


def rung(name, gain=None, width=0.01, kept=None, **more):
    row = {"model": "taiji", "rung": name, "group": "all", "auc": 0.7, **more}
    if gain is None:
        return row
    row |= {"against": "before", "gain": gain, "low": gain - width, "high": gain + width}
    if kept is None:
        return row
    return row | {
        "kept": kept,
        "kept_gain": gain * kept,
        "kept_low": (gain - width) * kept,
        "kept_high": (gain + width) * kept,
    }


def view(*logs):
    return ladder_view(RunMetrics.model_construct(ladder=[LogLadder.model_validate(log) for log in logs]))


def ladder(text, kept):
    return [
        rung("0 counts"),
        rung("1 collaborative", 0.02),
        rung("2 text match, wordllama", text, kept=kept),
        rung("2 text match, wordllama: control, permuted texts", -0.02, kept=0.0),
        rung("4 oracle of intents, wordllama: the true next 10", 0.003, kept=1.0),
    ]


def test_a_gain_and_a_null_stand_beside_each_other():
    found = view({"log": "shop", "ladder": ladder(0.05, 1.0)}, {"log": "shop-null", "ladder": ladder(-0.02, 0.0)})
    assert [line["verdict"] for line in found["headlines"]] == [
        "better",
        "interval includes zero",
        LEFT_OUT,
        "interval includes zero",
    ]
    assert found["headlines"][0]["text"].startswith("shop: the texts of the items +0.050 [+0.040, +0.060] AUC")
    assert [row["title"] for row in found["rows"]] == [
        "counts",
        "+ collaborative",
        "+ text match, wordllama",
        "… permuted texts (control)",
        "+ oracle of intents, wordllama",
    ]
    text = found["rows"][2]["cells"]
    assert (
        [cell["value"] for cell in text] == ["+0.050", "left out"] and text[0]["mark"] == "▲" and text[1]["mark"] == "○"
    )
    assert found["rows"][0]["cells"][0]["value"] == "0.700" and found["twins"]


def test_other_groups_are_not_told_and_a_missing_rung_is_a_dash():
    cold = rung("2 text match, wordllama", 0.3, kept=1.0, group="cold items")
    found = view({"log": "a", "ladder": ladder(0.05, 1.0)}, {"log": "b", "ladder": [rung("0 counts"), cold]})
    assert [row["cells"][1]["value"] for row in found["rows"]] == ["0.700", "–", "–", "–", "–"]
    assert all(line["text"].startswith("a:") for line in found["headlines"])


def test_a_log_that_is_too_short_says_so():
    found = view({"log": "tiny", "ladder": [], "left_out": "The log is too short for a ladder.\n  where: data tiny"})
    assert found["headlines"][0]["verdict"] == "The log is too short for a ladder." and not found["rows"]


def test_no_ladder_no_view():
    assert view() is None
