"""Every page answers, escapes what models wrote, and cannot be talked into reading anything else."""

from __future__ import annotations

import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.inspector.pages import Inspector, number_text, whole


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
        *(f"/users/{u}" for u in range(0, 60, 5)),
    ],
)
def test_every_page_answers(inspector, path):
    assert get(inspector, path)[0] == 200


def test_text_of_models_and_data_is_escaped_everywhere(inspector):
    pages = ["/", "/users", "/alignment", "/compare", "/cards/model", *(f"/users/{u}" for u in range(0, 60, 5))]
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
        "/users/60",
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
    assert status == 404 and "<h1>Not here</h1>" in body


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
    for path in ("/users", "/users/5", "/alignment"):
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
    assert get(inspector, "/report")[0] == get(inspector, "/compare")[0] == get(inspector, "/users/0")[0] == 404
    for name in ("data", "metrics.json", "examples"):
        copy = shutil.copytree if (run_folder / name).is_dir() else shutil.copy
        copy(run_folder / name, folder / name)
    assert "What may be concluded" in get(inspector, "/")[1], "the page follows the run"
    assert get(inspector, "/users/0")[0] == 200
    (folder / "metrics.json").write_text("{broken")
    status, body = get(inspector, "/")
    assert status == 500 and "metrics.json" in body and "Traceback" not in body


def test_what_the_other_run_answered_stands_beside(inspector):
    bodies = [get(inspector, f"/users/{u}")[1] for u in range(15, 60, 20)]
    assert all("The same prompt in other" in body for body in bodies)


def test_numbers_for_people():
    assert [number_text(v) for v in (None, 0, 0.26, 0.2604, -1.5, 123.4, 12345.6, 1e-7)] == [
        "–",
        "0",
        "0.260",
        "0.260",
        "−1.50",
        "123",
        "12,346",
        "1.00e−07",
    ]
    assert (whole("12", 0), whole("-1", 7), whole("٣", 7), whole("", 7), whole(None, None)) == (12, 7, 7, 7, None)
