"""A component beats the baselines only if both intervals lie above zero, and what it does not beat is said with its
reasons."""

from taiji.cascade.component_findings import component_findings, gap_text, log_limits, verdict
from taiji.cascade.log_slices import LogFacts

BASELINES = {"popular": "popularity", "together": "co-occurrence"}
METRIC = "recall@50"


def pair(against, low, high, **more):
    value = None if low is None else (low + high) / 2
    return {"against": against, "value": value, "low": low, "high": high, **more}


def row(arm, first=None, *others, **more):
    return {
        "arm": arm, "metric": METRIC, "value": 0.2, "low": 0.1, "high": 0.3, "n": 90,
        **({"difference": first} if first else {}), **({"competitors": list(others)} if others else {}), **more,
    }  # fmt: skip


def test_verdicts_and_reasons():
    retrieval = [
        row("popular"),
        row("together", pair("popular", -0.2, -0.1)),
        row("good", pair("popular", 0.01, 0.02), pair("together", 0.1, 0.2)),
        row("half", pair("popular", -0.01, 0.03), pair("together", 0.1, 0.2)),
        {**row("half"), "metric": "recall@10"},
    ]
    slices = [
        row("half", pair("popular", 0.1, 0.2), slice="20 or more past interactions"),
        row("half", pair("popular", -0.2, -0.1), slice="no history"),
        row("half", pair("popular", -0.2, 0.1), slice="1 to 4 past interactions"),
    ]
    good, half = component_findings(retrieval, slices, BASELINES, METRIC)
    assert (good["component"], good["beats"], good["reasons"]) == ("good", True, [])
    assert [p["verdict"] for p in half["comparisons"]] == ["open", "better"]
    assert half["beats"] is False
    assert half["reasons"] == [
        "With these 90 users, differences from popular below about 0.020 cannot be detected.",
        "It is ahead of popular for: 20 or more past interactions (+0.1500 [+0.1000, +0.2000]).",
        "It is behind popular for: no history (-0.1500 [-0.2000, -0.1000]).",
    ]


def test_without_baselines_nothing_is_claimed():
    (found,) = component_findings([row("alone")], [], {}, METRIC)
    assert found["beats"] is None and found["comparisons"] == [] and found["reasons"] == []


def test_no_interval_is_no_verdict():
    gap = pair("popular", None, None, reason="too few users")
    assert verdict(gap) == "no interval" and gap_text(gap) == "too few users"
    (found,) = component_findings([row("few", gap)], [], BASELINES, METRIC)
    assert found["beats"] is False and found["reasons"] == ["Against popular: too few users."]


def test_limits_are_named_where_they_are_large():
    rich = LogFacts(10_000, 100, 100.0, 0.0, 0.0, 0.0, 20, 0.3)
    assert log_limits(rich) == []
    poor = LogFacts(300, 100, 3.0, 0.5, 0.25, 0.4, 20, 0.7)
    told = " ".join(log_limits(poor))
    for figure in ("50%", "25%", "40%", "3.0 past interactions", "70%"):
        assert figure in told
