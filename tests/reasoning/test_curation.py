"""The review loop: its paths, the hash chain, agreement, and reviewers of known quality against the closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.reasoning.curation import AuditLog, agreement_of, expected_outcome, fleiss_kappa, run_review
from taiji.reasoning.reviewers import (
    AXES,
    Draft,
    ModelReviewer,
    PersonReviewer,
    Remembered,
    Review,
    RuleReviewer,
)
from taiji.reasoning.settings import ReviewSettings

SETTINGS = ReviewSettings()


def draft(record="r", rationale="good text", **values) -> Draft:
    return Draft(
        **{
            "record": record,
            "context": "Bought: milk",
            "answer": "Item title: bread",
            "title": "bread",
            "levels": ("FOOD",),
            "rationale": rationale,
            **values,
        }
    )


class Oracle:
    """Accepts good drafts with probability ``sensitivity`` and rejects bad ones with probability ``specificity``."""

    kind = "rule"

    def __init__(self, sensitivity: float, specificity: float, seed: int, name: str = "oracle") -> None:
        self.sensitivity, self.specificity, self.name = sensitivity, specificity, name
        self.rng = np.random.default_rng(seed)

    def review(self, drafts):
        chances = [self.sensitivity if d.rationale == "good" else 1 - self.specificity for d in drafts]
        return [
            Review(self.name, "rule", dict.fromkeys(AXES, 5 if self.rng.random() < c else 2), "again") for c in chances
        ]


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "good", "again", "reviewers"),
    [(0.9, 0.8, 0.5, 0.6, 1), (0.7, 0.9, 0.3, 0.4, 2), (1.0, 1.0, 0.2, 0.2, 1)],
    ids=["one reviewer", "two reviewers", "perfect reviewer"],
)
def test_reviewers_of_known_quality_match_the_closed_forms(sensitivity, specificity, good, again, reviewers):
    count = 5_000
    rng = np.random.default_rng(7)
    drafts = [draft(str(i), "good" if rng.random() < good else "bad") for i in range(count)]
    panel_free = [Oracle(sensitivity, specificity, seed, f"o{seed}") for seed in range(reviewers)]
    outcomes = run_review(
        drafts, panel_free, lambda d, f: "good" if rng.random() < again else "bad", SETTINGS, AuditLog()
    )
    accepted = [o for o in outcomes if o.status == "accepted"]
    expected = expected_outcome(sensitivity, specificity, good, again, SETTINGS, reviewers)
    assert len(accepted) / count == pytest.approx(expected["accepted"], abs=0.025)
    assert np.mean([o.rationale == "good" for o in accepted]) == pytest.approx(expected["precision"], abs=0.025)
    assert np.mean([o.rounds for o in outcomes]) == pytest.approx(expected["rounds"], abs=0.08)


def test_the_closed_form_of_one_round():
    one = expected_outcome(0.8, 0.6, 0.5, 0.9, ReviewSettings(strikes=1))
    assert one == pytest.approx({"accepted": 0.5 * 0.8 + 0.5 * 0.4, "precision": 0.4 / 0.6, "rounds": 1.0})


def test_strikes_then_the_panel():
    bad, good = Oracle(0, 1, 0, "strict"), Oracle(1, 0, 0, "lenient")
    log = AuditLog()
    texts = iter("abcdefgh")
    (outcome,) = run_review([draft()], [bad], lambda d, feedback: next(texts), SETTINGS, log, panel=[good, good, bad])
    assert (outcome.status, outcome.by, outcome.rounds, outcome.rationale) == ("accepted", "panel", 5, "d")
    assert [e["step"] for e in log.entries] == [
        "draft",
        *["review", "strike", "draft"] * 4,
        "review",
        "strike",
        "panel",
        "panel",
        "panel",
        "accepted",
    ]
    (outcome,) = run_review([draft()], [bad], lambda d, f: "x", SETTINGS, AuditLog())
    assert (outcome.status, outcome.by) == ("rejected", "panel")


def test_feedback_reaches_the_writer_and_a_wrong_answer_is_a_strike_without_review():
    got = []
    log = AuditLog()

    def rewrite(d, feedback):
        got.append(list(feedback))
        return "mended"

    check = lambda d: "" if d.rationale == "mended" else "names another item"  # noqa: E731
    (outcome,) = run_review([draft()], [Oracle(0, 0, 0)], rewrite, SETTINGS, log, answer_check=check)
    assert outcome.status == "accepted"
    assert got == [["names another item"]]
    assert sum(e["step"] == "review" for e in log.entries) == 1


def test_agreement_is_counted():
    lenient, strict = Oracle(1, 0, 0), Oracle(0, 1, 0)
    for agreement, status in ((1.0, "rejected"), (2 / 3, "accepted")):
        (outcome,) = run_review(
            [draft()],
            [lenient, lenient, strict],
            lambda d, f: "x",
            ReviewSettings(agreement=agreement, strikes=1),
            AuditLog(),
        )
        assert outcome.status == status


def test_no_record_is_accepted_without_provenance():
    log = AuditLog()
    outcomes = run_review(
        [draft(str(i)) for i in range(20)], [Oracle(0.5, 0.5, 3)], lambda d, f: d.rationale, SETTINGS, log
    )
    for outcome in outcomes:
        steps = [e for e in log.entries if e["record"] == outcome.record]
        assert steps[0]["step"] == "draft"
        assert steps[-1]["step"] == outcome.status
        if outcome.status == "accepted":
            assert any(e["step"] == "review" and e["data"]["round"] == outcome.rounds for e in steps)


@given(place=st.integers(0, 30), change=st.sampled_from(["edit", "drop", "swap", "hash"]))
@settings(max_examples=40, deadline=None)
def test_the_chain_shows_every_change(place, change):
    log = AuditLog()
    run_review([draft(str(i)) for i in range(8)], [Oracle(0.5, 0.5, 1)], lambda d, f: "x", SETTINGS, log)
    log.verify()
    place %= len(log.entries) - 1
    if change == "edit":
        log.entries[place] = {**log.entries[place], "data": {"scores": "5"}}
    elif change == "drop":
        del log.entries[place]
    elif change == "swap":
        log.entries[place], log.entries[place + 1] = log.entries[place + 1], log.entries[place]
    else:
        log.entries[place] = {**log.entries[place], "hash": "0" * 64}
    with pytest.raises(TaijiError, match="tampered"):
        log.verify()


def test_the_log_comes_back_from_disk(tmp_path):
    log = AuditLog()
    run_review([draft(rationale="ä 🍣")], [Oracle(1, 1, 0)], lambda d, f: "x", SETTINGS, log)
    log.save(tmp_path / "log.jsonl")
    again = AuditLog.load(tmp_path / "log.jsonl")
    assert again.entries == log.entries
    assert again.head == log.head
    (tmp_path / "log.jsonl").write_text((tmp_path / "log.jsonl").read_text().replace("🍣", "🍕"))
    with pytest.raises(TaijiError, match="entry 0"):
        AuditLog.load(tmp_path / "log.jsonl")


def test_a_person_reviews_through_files(tmp_path):
    person = PersonReviewer("ada", tmp_path)
    first = [draft("a"), draft("b")]
    outcomes = run_review(first, [RuleReviewer(), person], lambda d, f: "x", ReviewSettings(bar=1), AuditLog())
    assert [o.status for o in outcomes] == ["waiting", "waiting"]
    assert person.ask(first) == 2
    sheets = [json.loads(line) for line in (tmp_path / "ada.todo.jsonl").read_text().splitlines()]
    assert [s["record"] for s in sheets] == ["a", "b"]
    sheets[0]["scores"] = dict.fromkeys(AXES, 4)
    (tmp_path / "ada.done.jsonl").write_text(json.dumps(sheets[0]) + "\n")
    outcomes = run_review(first, [RuleReviewer(), person], lambda d, f: "x", ReviewSettings(bar=1), AuditLog())
    assert [o.status for o in outcomes] == ["accepted", "waiting"]
    assert person.ask(first) == 1
    assert len((tmp_path / "ada.todo.jsonl").read_text().splitlines()) == 1
    (tmp_path / "ada.done.jsonl").write_text(json.dumps({**sheets[1], "scores": {"structure": 9}}) + "\n")
    with pytest.raises(TaijiError, match="line 1"):
        person.review(first)


def test_a_repeated_loop_writes_no_step_twice():
    drafts, log = [draft("a"), draft("b")], AuditLog()
    run_review(drafts, [RuleReviewer()], lambda d, f: "", ReviewSettings(bar=1), log)
    once = list(log.entries)
    assert run_review(drafts, [RuleReviewer()], lambda d, f: "", ReviewSettings(bar=1), log)[0].status == "accepted"
    assert log.entries == once
    log.verify()


def test_a_corrected_review_is_in_the_log():
    class Person(Oracle):
        def __init__(self, score: int) -> None:
            self.score, self.name = score, "person"

        def review(self, drafts):
            return [Review(self.name, "person", dict.fromkeys(AXES, self.score), "") for _ in drafts]

    log = AuditLog()
    for score, status in ((2, "rejected"), (5, "accepted")):
        assert run_review([draft("a")], [Person(score)], lambda d, f: "", ReviewSettings(), log)[0].status == status
        (review,) = log.reviews().values()
        assert review.lowest == score
    log.verify()


def test_a_log_with_any_line_separator_is_read_again(tmp_path):
    log = AuditLog()
    log.add("r", "review", feedback="too short\u2028say more\u2029and\x85more\x1c")
    log.save(tmp_path / "log.jsonl")
    assert AuditLog.load(tmp_path / "log.jsonl").entries == log.entries


def test_every_step_of_a_changed_draft_is_in_the_log():
    log = AuditLog()
    for text in ("bad", "good"):
        reviewers = [Oracle(1, 1, 0, "a"), Oracle(1, 1, 0, "b")]
        (outcome,) = run_review([draft(rationale=text)], reviewers, lambda d, f: "", SETTINGS, log)
    assert outcome.status == "accepted"
    steps = [(text, entry["step"]) for text, entry in log.steps()]
    assert steps == [
        *[("bad", step) for step in ("draft", "review", "review", "strike", "rejected")],
        *[("good", step) for step in ("draft", "review", "review", "accepted")],
    ]
    assert {key[2] for key in log.reviews()} == {"bad", "good"}
    assert agreement_of(log, SETTINGS.bar) == 1.0  # over two drafts, on which both agree


def test_a_record_that_nobody_rewrites_ends_after_its_round():
    (outcome,) = run_review([draft()], [Oracle(0, 1, 0)], lambda d, f: "", SETTINGS, AuditLog())
    assert (outcome.status, outcome.rounds) == ("rejected", 1)


def test_what_was_said_is_remembered():
    log, asked = AuditLog(), []

    class Counting(RuleReviewer):
        def review(self, drafts):
            asked.extend(drafts)
            return super().review(drafts)

    run_review([draft("a")], [Counting()], lambda d, f: "", ReviewSettings(bar=1), log)
    given = Remembered(Counting(), log.reviews()).review([draft("b"), draft("a"), draft("a", "another text")])
    assert [d.record for d in asked] == ["a", "b", "a"]
    assert given[1] == log.reviews()["a", 1, "good text", "rules"]


def test_rules_see_leaks_and_care():
    long = (
        "The list shows that the shopper buys milk every week. Food of this kind is often taken with something baked."
    )
    good, leaking, poor = RuleReviewer().review(
        [draft(rationale=long), draft(rationale=long + " So bread."), draft(rationale="hm hm hm")]
    )
    assert good.scores["correctness"] == 5
    assert leaking.scores["correctness"] == 1
    assert "do not name the answer" in leaking.feedback
    assert poor.lowest < 3
    assert poor.lowest < good.lowest


def test_rules_are_not_met_by_words_of_the_form():
    form = "Choose one item and its category from the list.\n- Milk, Food\nForm: Item title: ...; Category L1: ..."
    empty = "After thinking about the interests of the customer in short sentences, some item will be chosen next."
    (found,) = RuleReviewer().review(
        [
            Draft(
                "r",
                form,
                "Item title: The Joy of Cooking; Category L1: Cookbooks",
                "The Joy of Cooking",
                ("Cookbooks",),
                empty,
            )
        ]
    )
    assert found.scores["terminology"] == 3
    assert found.scores["usefulness"] == 1


def test_a_model_gives_whole_reviews(lm):
    reviews = ModelReviewer(lm).review([draft(), draft("b", "other text")])
    assert [r.kind for r in reviews] == ["model", "model"]
    assert reviews == ModelReviewer(lm).review([draft(), draft("b", "other text")])


@pytest.mark.parametrize(
    "scores",
    [{}, dict.fromkeys(AXES, 0), dict.fromkeys(AXES, 6), dict.fromkeys(AXES[:4], 3), dict.fromkeys(AXES, None)],
)
def test_half_a_review_is_none(scores):
    with pytest.raises(TaijiError, match="is incomplete"):
        Review("x", "rule", scores)


def test_fleiss_kappa_on_the_published_example():
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(np.array(table)) == pytest.approx(0.20993, abs=1e-5)


def test_fleiss_kappa_at_its_ends():
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1.0
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 2, (4000, 3))
    assert fleiss_kappa(np.stack([3 - votes.sum(1), votes.sum(1)], 1)) == pytest.approx(0, abs=0.03)
    with pytest.raises(TaijiError, match="at least two raters"):
        fleiss_kappa(np.array([[3, 0], [1, 0]]))


def test_fleiss_kappa_with_different_numbers_of_raters():
    # agreement (1 + 0) / 2; shares of the categories 4/5 and 1/5, so chance is .68
    assert fleiss_kappa(np.array([[3, 0], [1, 1]])) == pytest.approx((0.5 - 0.68) / 0.32)


def test_agreement_of_a_log():
    log = AuditLog()
    run_review(
        [draft(str(i), "good" if i % 2 else "bad") for i in range(20)],
        [Oracle(1, 1, 0), Oracle(1, 1, 1)],
        lambda d, f: "good",
        SETTINGS,
        log,
    )
    assert agreement_of(log, SETTINGS.bar) == 1.0
    assert np.isnan(agreement_of(AuditLog(), 4))


def test_agreement_counts_the_drafts_that_several_have_reviewed():
    log = AuditLog()
    for record, passes in (("a", [5, 5, 5]), ("b", [5, 1]), ("c", [5])):
        for score in passes:
            log.add(record, "review", round=0, scores={"truth": score})
    assert agreement_of(log, 4) == pytest.approx((0.5 - 0.68) / 0.32)
    assert np.isnan(agreement_of(log, 0))


@pytest.mark.parametrize(("words", "advice"), [(5, "say more"), (200, "say it in at most 150 words")], ids=["short", "long"])  # fmt: skip
def test_the_rule_reviewer_asks_for_more_only_where_there_is_too_little(words, advice):
    (review,) = RuleReviewer().review([draft(rationale="food " * words)])
    assert review is not None and advice in review.feedback
    assert ("say more" in review.feedback) == (words < 12)
