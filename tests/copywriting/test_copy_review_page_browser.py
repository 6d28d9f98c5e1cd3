"""The page of comparisons in a real Chromium: keys, contrast, narrow screens, hostile text."""

from __future__ import annotations

import threading
from dataclasses import replace

from tests.copywriting.test_copy_review import A, B
from tests.inspector.browser import browser
from tests.inspector.samples import HOSTILE
from tests.inspector.test_server_browser import CONTRAST

from taiji.copywriting.copy_review import CopyReview, judged_pairs
from taiji.copywriting.copy_review_page import CopyReviewServer


def test_copies_are_compared_by_keys_and_hostile_text_stays_text(tmp_path):
    bad = replace(B, left=f"B {HOSTILE} " + "long" * 30)
    facts = {"a": [("title", f"A lamp {HOSTILE}")]}
    with CopyReview([A, bad], "ada", tmp_path) as session, CopyReviewServer(session, facts) as server, browser() as tab:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for width, dark in ((1280, False), (1280, True), (400, False)):
            tab.size(width, dark=dark)
            tab.open(server.url)
            tab.until(f"document.querySelector('#pick-left').innerText === {A.left!r}")
            assert tab.run(CONTRAST) == [] and tab.run("document.documentElement.scrollWidth") <= width
        tab.press("ArrowRight")
        tab.until("document.querySelector('#count').innerText === '1 of 2 compared'")
        assert tab.run("document.documentElement.scrollWidth") <= 400
        tab.click("#pick-left")
        tab.until("!document.querySelector('#done').hidden")
        assert judged_pairs(tmp_path)["winner"].to_list() == [A.right, bad.left]
        tab.press("u")
        tab.until("document.querySelector('#done').hidden")
        assert judged_pairs(tmp_path)["winner"].to_list() == [A.right]
        assert tab.run("document.title") == "Copies compared · taiji" and tab.complaints == []
        server.shutdown()
