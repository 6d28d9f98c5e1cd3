"""Every page answers, escapes what models wrote, and cannot be talked into reading anything else."""

from __future__ import annotations

import re
import shutil
from html import escape, unescape
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inspector.samples import write_run

from taiji.inspector.pages import Inspector, address, whole
from taiji.inspector.run_view import RunFiles
from taiji.reporting.report import clock


@pytest.fixture(scope="module")
def inspector(run_folder, other_folder):
    return Inspector(run_folder, other_folder)


def get(inspector, path, query=""):
    page = inspector.page(path, query)
    return page.status, page.body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/users",
        "/alignment",
        "/compare",
        "/report",
        "/cards/model",
        "/static/inspector.js",
        "/static/report.css",
        *(f"/users/user-{u}" for u in range(0, 60, 5)),
    ],
)
def test_every_page_answers(inspector, path):
    assert get(inspector, path)[0] == 200


def test_text_of_models_and_data_is_escaped_everywhere(inspector):
    pages = ["/", "/users", "/alignment", "/compare", "/cards/model", *(f"/users/user-{u}" for u in range(0, 60, 5))]
    hostile = 0
    for path in pages:
        for query in ("", "moment=0", "moment=1", "moment=2", "events=all", "step=2") if path != "/" else ("",):
            body = get(inspector, path, query)[1]
            assert re.findall(r"<script[^>]*>", body) == ['<script src="/static/inspector.js" defer>'], path
            assert "<img" not in body and "onerror=alert(1)>" not in body
            hostile += body.count("&lt;script&gt;document.title")
    assert hostile > 50, "the hostile texts are shown, as text"
    assert "&lt;script&gt;" in get(inspector, "/users", "q=%3Cscript%3Ealert(1)%3C/script%3E")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/../config.json",
        "/static/../config.json",
        "/static/inspector.py",
        "/static/",
        "/cards/..%2f..%2fconfig",
        "/cards/config",
        "/users/-1",
        "/users/user-60",
        "/users/5",
        "/users/USER-5",
        "/users/%20user-5",
        "/users/user-5%00",
        "/users/%ff%fe",
        "/users/1e3",
        "/users/٣",
        "/users/" + "9" * 40,
        "/users/1/2",
        "//etc/passwd",
        "/report/../config.json",
        "/%2e%2e/config.json",
        "/data/dataset/events.parquet",
    ],
)
def test_what_is_no_page_is_not_found(inspector, path):
    status, body = get(inspector, path)
    assert status == 404 and "<h1>Page not found</h1>" in body


@given(st.text(max_size=40), st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_nothing_a_reader_types_breaks_it(run_folder, path, query):
    status, body = get(Inspector(run_folder), "/" + path, query)
    assert status in (200, 404) and body


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-3",
        "page=999999999",
        "page=x",
        "page=1&page=2",
        "only=' OR 1=1",
        "order=zzz",
        "q=%00%ff%fe",
        "q=" + "a" * 5000,
        "q=(.*%5B",
        "moment=99999",
        "moment=-1",
        "step=99999999999999",
    ],
)
def test_odd_queries_are_answered(inspector, query):
    for path in ("/users", "/users/user-5", "/alignment"):
        assert get(inspector, path, query)[0] == 200


def test_a_run_under_way_and_a_broken_one(run_folder, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run_folder / "config.json", folder)
    inspector = Inspector(folder)
    for path in ("/", "/users", "/alignment"):
        status, body = get(inspector, path)
        assert status == 200, path
    assert "no report yet" in get(inspector, "/")[1]
    assert get(inspector, "/report")[0] == get(inspector, "/compare")[0] == get(inspector, "/users/user-0")[0] == 404
    for name in ("data", "metrics.json", "examples"):
        copy = shutil.copytree if (run_folder / name).is_dir() else shutil.copy
        copy(run_folder / name, folder / name)
    assert "What the language model changed" in get(inspector, "/")[1], "the page follows the run"
    assert get(inspector, "/users/user-0")[0] == 200
    (folder / "metrics.json").write_text("{broken")
    status, body = get(inspector, "/")
    assert status == 500 and "metrics.json" in body and "Traceback" not in body


def test_what_the_other_run_answered_stands_beside(inspector):
    bodies = [get(inspector, f"/users/user-{u}")[1] for u in range(15, 60, 20)]
    assert all("The same prompt in other" in body for body in bodies)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A run whose ids are the numbers of other users, or hold what means something in an address."""
    names = {0: "a/b", 1: "q?x=1&y#z", 2: "100 %", 3: "Zoë ☕", 4: "<b>bold</b>", 5: "a%2Fb", 6: "+"}
    return write_run(
        tmp_path_factory.mktemp("runs") / "odd",
        users=30,
        per_user=8,
        items=40,
        steps=3,
        called=lambda user: names.get(user, str(37 - user)),
    )


def test_a_user_s_address_is_the_id_in_every_link(odd):
    inspector = Inspector(odd)
    ids = [str(name) for name in RunFiles(odd).dataset.users["user_id"]]
    assert "20" in ids and ids[20] != "20", "an id is another user's number"
    for user_id in ids:
        status, body = get(inspector, address(user_id))
        assert status == 200 and f"<h1>User {escape(user_id)}</h1>" in body, user_id
    pages = ["/users", "/alignment", *map(address, ids)]
    seen = set()
    for page in pages:
        body = get(inspector, page)[1]
        for link, text in re.findall(r'<a[^>]*href="(/users/[^"]*)"[^>]*>(.*?)</a>', body):
            path, _, query = unescape(link).partition("?")
            status, shown = get(inspector, path, query)
            assert status == 200 and "?" not in path and "#" not in path, link
            heading = unescape(re.search(r"<h1>User (.*?)</h1>", shown)[1])
            assert path == address(heading)
            if text.lower().startswith("user "):  # a look-alike, or whom a step asked
                assert unescape(text[5:]) == heading
            seen.add(heading)
    assert seen == set(ids)
    assert get(inspector, "/users/a/b")[0] == 404 and get(inspector, "/users/0")[0] == 404
    assert get(inspector, "/users", "q=" + quote("a/b"))[1].count('href="/users/a%2Fb"') == 1


def test_a_user_of_calibration_is_called_that(inspector):
    body = get(inspector, "/users", "order=id&only=rationales")[1]
    rows = dict(re.findall(r'href="/users/([^"]*)">[^<]*</a></th>(.*?)</tr>', body))
    assert 'title="Rationales of this prompt only set the threshold' in rows["user-5"]
    assert "calibration</td>" in rows["user-5"] and "calibration" not in rows["user-0"]
    assert rows["user-0"].count("<td>") == 7 and rows["user-5"].count("<td") == 6, "it stands for kept and rejected"


def test_the_overview_explains_what_it_shows(inspector, run_folder):
    body = get(inspector, "/")[1]
    assert "192 were written: 83 of 144 kept (48 more set the threshold)." in body
    assert "83 / 144</b><span>rationales kept / scored" in body
    for note in ("comparisons of one trained run", "▲ better, ▼ worse: the paired", "◆ different, for", "“Sparse” is"):
        assert note in body
    stages = [state.seconds for state in RunFiles(run_folder).stages]
    assert stages[-1] and f"<b>{clock(sum(stages))}</b><span>computing time" in body, "the report stage counts, too"
    assert f"<b>{clock(sum(stages[:-1]))}</b>" not in body


def test_reward_bars_line_up_whatever_their_number(inspector):
    body = get(inspector, "/alignment", "step=3")[1]
    assert len(re.findall(r'</i></span><span class="value">[\d.–]+</span></dd>', body)) == 8
    sheet = get(inspector, "/static/inspector.css")[1]
    assert ".amounts .value { min-width: 5em;" in sheet


def test_whole_numbers_of_an_address():
    assert (whole("12", 0), whole("-1", 7), whole("٣", 7), whole("", 7), whole(None, None)) == (12, 7, 7, 7, None)


def test_the_overview_shows_how_the_log_was_read(inspector):
    page = get(inspector, "/")[1]
    assert "How the log was read" in page and "2 rows &lt;without&gt; a user_id" in page
    assert "9 of 9" in page
