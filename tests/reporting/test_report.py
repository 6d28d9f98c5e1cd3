"""The report is one page that loads nothing, shows everything and claims no more than the figures allow."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from tests.reporting.samples import RATIONALES, sample_audit, sample_metrics

from taiji.core.errors import TaijiError
from taiji.data.reading_report import Finding, Reading
from taiji.reporting.report import PAPER, render_report, write_report

VOID = {"meta", "br", "img", "input", "line", "path", "circle", "rect", "link"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.problems = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.problems.append((tag, self.getpos()))


@pytest.fixture(scope="module")
def page():
    return render_report(sample_metrics(), rationales=RATIONALES, prompt="What <next>?", configuration={"seed": 0})


def test_it_is_one_well_formed_page_that_loads_nothing(page):
    parser = Balance()
    parser.feed(page)
    assert not parser.problems and not parser.open
    assert (
        not re.search(r"(src|href)\s*=", page)
        and "http" not in page
        and "<script" not in page
        and "url(" not in page
        and "@import" not in page
    )
    assert len(page) < 300_000


def test_it_shows_every_part_of_a_run(page):
    for part in (
        "findings",
        "data",
        "rationales",
        "alignment",
        "answers",
        "rankers",
        "time",
        "claims",
        "configuration",
    ):
        assert f'id="{part}"' in page
    metrics = sample_metrics()
    for text in (
        metrics["split"]["fingerprint"],
        "2017-10-25",
        "What &lt;next&gt;?",
        "names the target",
        "R = 4.62",
        "popo-light",
        "semantic",
        "own category",
        "12 min 24 s",
    ):
        assert text in page
    assert page.count('class="card kept"') == 2 and page.count('class="card"') == 2
    assert all(stage in page for stage in metrics["seconds"])


def test_counts_named_after_a_period_stand_with_it():
    metrics = sample_metrics()
    metrics["split"]["rows"] = {"households": 9, "test exposures": 1234, "test prompts": 56}
    page = render_report(metrics)
    assert "1,234 exposures, 56 prompts; evaluates everything" in page
    assert page.count('class="tile"') == 5


def test_tiles_come_in_the_order_of_the_loop():
    metrics = sample_metrics()
    metrics["split"]["rows"] = {
        f"{role} prompts": number for number, role in enumerate(("alignment", "calibration", "rationale", "test"))
    }
    metrics["alignment"]["steps"] = metrics["alignment"]["steps"][:1]
    page = render_report(metrics)
    tiles = re.findall(r'class="tile"><b>([^<]+)</b><span>([^<]+)</span>', page)
    assert [name for _, name in tiles[:4]] == [
        "rationale prompts",
        "calibration prompts",
        "alignment prompts",
        "test prompts",
    ]
    assert ("1", "step of popo-light") in tiles and "1 steps" not in page
    assert "click with a conversion" in page, "CTCVR is explained"


def test_the_audit_says_plainly_where_the_controls_fail():
    sound = render_report(sample_metrics(), audit=sample_audit(("answer", "own", "other", "shuffled")))
    failed = render_report(sample_metrics(), audit=sample_audit(("own", "answer", "other", "shuffled")))
    for page in (sound, failed):
        parser = Balance()
        parser.feed(page)
        assert not parser.problems and not parser.open
        for part in (
            "Leakage audit",
            "specificity",
            "blind gap",
            "leak share",
            "kept with the least lift".capitalize(),
            "names its item",
            "&lt;b&gt;leak",
        ):
            assert part in page
    assert "alarm" not in sound[sound.index("<body>") :] and "do NOT have the expected order" not in sound
    assert "scored on 12 of the examples, the blind gap on 4, with" in sound
    assert "blind gap <small>4 examples</small>" in sound and "specificity <small>12 examples</small>" in sound
    assert "the blind gap on" not in failed
    assert "The controls do NOT have the expected order" in failed and 'class="outcome alarm"' in failed
    assert 'id="audit"' not in render_report(sample_metrics())
    assert "no rationales for the controls" in render_report(sample_metrics(), audit=sample_audit(()))


def test_an_order_that_few_examples_do_not_show_is_no_alarm():
    audit = sample_audit(("answer", "own", "shuffled", "other"))
    audit["order"] |= {"verdict": "not shown", "says": "The order of the controls is not shown with 12 examples."}
    page = render_report(sample_metrics(), audit=audit)
    body = page[page.index("<body>") :]
    assert 'class="outcome neutral"' in body and "alarm" not in body
    assert "not shown with 12 examples" in body and "do NOT have the expected order" not in body


def test_it_marks_claims_as_claims_and_nothing_as_more_than_it_is(page):
    claims = page[page.index('id="claims"') :]
    assert "not results of this run" in claims and all(cell in claims for row in PAPER for cell in row)
    assert "interval includes zero" in page and "do not show a difference, not that there is none" in page


def test_every_mark_that_is_shown_is_explained(page):
    tables = page[page.index('id="rankers"') :]
    assert "◆" in tables and "◆ different, for a metric without a better direction" in tables
    assert "“Sparse” is the third of users" in tables
    answers = page[page.index('id="answers"') : page.index('id="rankers"')]
    assert "▲ better, ▼ worse: the paired difference against base" in answers
    assert "It is a reference, not a bound" in answers, "baselines can lie above the true item in CTCVR"


def test_the_main_negative_results_are_among_the_findings(page):
    found = page[page.index('id="findings"') : page.index('id="data"')]
    assert "Category L1 of aligned against the best baseline, own category, −0.121" in found
    assert found.count('class="verdict worse">worse') >= 3


def test_kept_rationales_stand_beside_those_judged(page):
    assert "wrote 192 rationales: 83 of 144 kept (48 more set the threshold), those under which" in page
    assert "83 / 144" in page and "rationales kept / scored" in page and "all scored rationales" in page


def test_numbers_have_one_minus_sign_everywhere():
    metrics = sample_metrics(3)
    metrics["alignment"]["steps"][-1]["rewards"]["semantic"] = -0.000655
    body = render_report(metrics, rationales=RATIONALES, audit=sample_audit(("own", "answer", "other", "shuffled")))
    told = re.sub(r"<[^>]*>", " ", body[body.index("<body>") :])
    assert "−0.000655" in told
    assert not re.findall(r"(?<![\w.])-\d", told), "a hyphen for a minus"


def test_text_from_data_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    page = render_report(
        {**sample_metrics(), "name": evil, "notes": [evil]},
        rationales=[{"kept": True, "reason": evil, "perplexity": None, "target": evil, "rationale": evil}],
        prompt=evil,
        configuration={"x": evil},
    )
    assert "<script" not in page


def test_a_bare_run_still_gives_a_page(tmp_path):
    bare = {
        **sample_metrics(0),
        "llm": [],
        "ranking": [],
        "seconds": {},
        "notes": [],
        "rationales": {"written": 0, "kept": 0, "threshold": None},
    }
    write_report(tmp_path / "report.html", bare)
    text = (tmp_path / "report.html").read_text()
    assert (
        "No answers were evaluated" in text and "No ranker was evaluated" in text and "No steps were recorded" in text
    )


def test_unknown_values_are_dashes_not_errors():
    metrics = sample_metrics(1)
    for row in metrics["llm"] + metrics["ranking"]:
        row["value"] = row["low"] = row["high"] = None
        row.pop("difference", None)
        row.pop("competitors", None)
    metrics["alignment"]["steps"][0]["rewards"]["semantic"] = None
    assert "–" in render_report(metrics)


def test_wrong_metrics_are_refused():
    with pytest.raises(TaijiError, match=r"metrics\.json"):
        render_report({"llm": []})


def test_it_shows_how_the_log_was_read_and_what_deserves_a_look():
    reading = Reading()
    reading.file("events", "log<b>.csv", 100)
    reading.left_out("events", "rows without a user_id", [3, 9])
    report = reading.report()
    page = render_report(
        sample_metrics(), reading=report.model_copy(update={"findings": (Finding(check="x", found="Found <3>."),)})
    )
    assert "How the log was read" in page and "Found &lt;3&gt;." in page
    assert "log&lt;b&gt;.csv" in page and "2 rows without a user_id" in page
    parser = Balance()
    parser.feed(page)
    assert not parser.problems
    assert "How the log was read" not in render_report(sample_metrics())
