"""The pages in a real Chromium: keys, focus, contrast, narrow screens, hostile text, nothing loaded from elsewhere."""

from __future__ import annotations

import threading

import pytest
from tests.inspector.browser import browser, executable
from tests.inspector.copy_samples import write_copy_run
from tests.inspector.recommender_samples import write_recommender

from taiji.inspector.pages import Inspector
from taiji.inspector.server import InspectorServer

if executable() is None:
    pytest.skip("no Chromium on this machine; `make tools` installs one where it may", allow_module_level=True)

PAGES = [
    "",
    "users",
    "users/user-0",
    "users/user-5",
    "users/user-10",
    "users/user-15",
    "users/user-15?moment=1",
    "users/user-16",
    "alignment?step=7",
    "compare",
    "cards/model",
    "nothing",
]
CONTRAST = """(() => {
  const parse = text => { const m = text.match(/[\\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 }; };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > .5) return c.rgb; } return [255, 255, 255]; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), weak = [];
  for (let node; node = walk.nextNode();) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.getClientRects().length || e.closest(".unseen, title")) continue;
    const style = getComputedStyle(e), fore = parse(e instanceof SVGElement ? style.fill : style.color).rgb, size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const [a, b] = [light(fore), light(behind(e))].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < (large ? 3 : 4.5)) weak.push(`${node.data.trim().slice(0, 30)} <${e.className?.baseVal ?? e.className}> ${ratio.toFixed(2)}`);
  }
  return weak;
})()"""
FOCUS = "({name: (document.activeElement.innerText || document.activeElement.id || '').trim().split('\\n')[0], tag: document.activeElement.tagName, id: document.activeElement.id, ring: getComputedStyle(document.activeElement).outlineStyle})"


@pytest.fixture(scope="module")
def url(run_folder, other_folder):
    with InspectorServer(Inspector(run_folder, other_folder), 0) as server:
        server.inspector.warm()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture(scope="module")
def shared():
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(shared):
    shared.size(1280)
    shared.requests.clear()
    shared.complaints.clear()
    return shared


def steps(tab, count):
    """Where the Tab key leads."""
    found = []
    for _ in range(count):
        tab.press("Tab")
        found.append(tab.run(FOCUS))
    return found


def test_every_page_is_quiet_loads_nothing_from_elsewhere_and_stays_harmless(tab, url):
    for page in PAGES:
        tab.open(url + page)
        assert "owned" not in tab.run("document.title")
        assert tab.run("document.images.length") == 0
    assert all(request.startswith((url, "data:")) for request in tab.requests), tab.requests
    assert [text for text in tab.complaints if "404" not in text] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast_aa(tab, url, dark):
    tab.size(1280, dark=dark)
    for page in PAGES:
        tab.open(url + page)
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.run(CONTRAST) == [], page


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_cut_off_on_narrow_screens(tab, url, width):
    tab.size(width)
    for page in PAGES:
        tab.open(url + page)
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.run("document.documentElement.scrollWidth") <= width, page


WORDS = """(() => {
  const broken = [];
  for (const cell of document.querySelectorAll('.written th:first-child, .written td:first-child')) {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node; node = walk.nextNode();) for (const word of node.data.matchAll(/[\\w]+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
      if (range.getClientRects().length > 1) broken.push(word[0]);
    }
  }
  return broken;
})()"""
BESIDE = """[...document.querySelectorAll('figure')].flatMap(figure => {
  const box = figure.getBoundingClientRect();
  return [...figure.querySelectorAll('text, .keys li')].filter(e => e.getBoundingClientRect().right > box.right + 8 || e.getBoundingClientRect().left < box.left - 8).map(e => e.textContent);
})"""
BARS = "[...document.querySelectorAll('#step .card')].map(card => [...card.querySelectorAll('.level')].map(e => Math.round(e.getBoundingClientRect().left - card.getBoundingClientRect().left)))"


def test_words_of_a_card_s_first_column_stay_whole_on_a_phone(tab, url):
    for width in (360, 400):
        tab.size(width)
        tab.open(url + "cards/model")
        assert tab.run("document.querySelectorAll('.written td').length") == 4
        assert tab.run(WORDS) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_names_of_curves_stay_inside_their_figure(tab, url, width):
    tab.size(width)
    for page in ("", "alignment", "compare"):
        tab.open(url + page)
        assert tab.run("document.querySelectorAll('figure svg').length") >= 2, page
        assert tab.run(BESIDE) == [], page


def test_reward_bars_of_a_step_stand_in_one_column(tab, url):
    tab.open(url + "alignment?step=3")
    places = tab.run(BARS)
    assert len(places) == 4 and len({place for card in places for place in card}) == 1, places


def test_tab_goes_through_the_page_in_order_with_a_visible_ring(tab, url):
    tab.open(url + "users/user-15")
    seen = steps(tab, 12)
    assert seen[0]["name"] == "Skip to the content"
    assert [step["name"] for step in seen[1:7]] == ["shown", "Overview", "Users", "Alignment", "Compare", "Report"]
    assert seen[7]["id"] == "find"
    assert all(step["ring"] != "none" for step in seen), seen
    tab.open(url + "users/user-10")
    assert steps(tab, 1)[0]["name"] == "Skip to the content"
    tab.press("Enter")
    assert tab.run("document.activeElement.id") == "main"
    tab.press("Tab")
    assert tab.run("document.querySelector('main').contains(document.activeElement)"), (
        "the keyboard goes on in the content"
    )


def test_slash_searches_while_typing_and_arrows_walk_the_list(tab, url):
    tab.open(url)
    tab.press("/")
    assert tab.run("document.activeElement.id") == "find"
    tab.open(url + "users")
    tab.press("/")
    assert tab.run("document.activeElement.id") == "q" and tab.run("document.activeElement.value") == ""
    tab.write("user-1")
    tab.until("document.querySelector('#results .count').innerText.startsWith('11 users')")
    assert tab.run("document.activeElement.id") == "q", "typing goes on"
    assert tab.run("location.search").startswith("?q=user-1")
    for key, wanted in (
        ("ArrowDown", "user-1"),
        ("ArrowUp", "q"),
        ("ArrowDown", "user-1"),
        ("End", "user-18"),
        ("ArrowDown", "user-18"),
        ("Home", "user-1"),
    ):
        tab.press(key)
        here = tab.run(FOCUS)
        assert wanted in (here["name"], here["id"]) or (
            key in ("End", "ArrowDown") and wanted == "user-18" and here["tag"] == "A"
        ), (key, here)
    tab.press("Enter")
    tab.until("location.pathname === '/users/user-1' && document.querySelector('h1')")
    assert tab.run("document.querySelector('h1').innerText") == "User user-1"


def test_moments_change_in_place_and_keep_the_keyboard(tab, url):
    tab.open(url + "users/user-15")
    tab.run("document.querySelector('#moments a').focus()")
    tab.press("ArrowDown")
    tab.press("Enter")
    tab.until("location.search.includes('moment=1')")
    tab.until("document.querySelector('#moments a[aria-current]').getAttribute('href').includes('moment=1')")
    assert tab.run("document.querySelector('#moments').contains(document.activeElement)")
    tab.run("history.back()")
    tab.until(
        "document.readyState === 'complete' && document.querySelector('#moments a[aria-current]') && !document.querySelector('#moments a[aria-current]').getAttribute('href').includes('moment=1')"
    )
    assert "moment=1" not in tab.run("location.search")


def test_a_step_is_chosen_in_a_curve_on_the_slider_and_by_links(tab, url):
    tab.open(url + "alignment")
    assert tab.run("document.querySelector('#h-step').innerText") == "Step 1 of 25"
    ends = tab.run("document.querySelector('svg[data-ends]').dataset.ends").split()
    tab.click("[data-steps-chart] svg", x=(float(ends[0]) + float(ends[1])) / 2, y=0.4)
    tab.until("document.querySelector('#h-step').innerText === 'Step 13 of 25'")
    assert tab.run("document.querySelectorAll('#step .card').length") == 4
    tab.run("document.querySelector('#at').focus()")
    tab.press("ArrowRight")
    tab.until("document.querySelector('#h-step').innerText === 'Step 14 of 25'")
    assert tab.run("document.activeElement.id") == "at", "the slider keeps the keyboard"
    tab.click("#after")
    tab.until("document.querySelector('#h-step').innerText === 'Step 15 of 25'")
    assert tab.run("document.querySelector('#at').value") == "15"


def test_everything_can_be_reached_without_script(tab, url):
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.send("Page.navigate", url=url + "users?q=user-1&order=id")
        tab.until("document.readyState === 'complete' && document.querySelectorAll('.people a').length === 11")
        tab.click("form.filters button")
        tab.until("location.search.includes('only=') && document.readyState === 'complete'")
        tab.send("Page.navigate", url=url + "alignment")
        tab.until("document.readyState === 'complete' && document.querySelector('#after')")
        tab.click("#after")
        tab.until("document.querySelector('#h-step').innerText === 'Step 2 of 25'")
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.fixture(scope="module")
def recommender_url(tmp_path_factory):
    folder = write_recommender(tmp_path_factory.mktemp("recommends") / "found")
    with InspectorServer(Inspector(folder), 0) as server:
        server.inspector.warm()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_pages_of_requests_have_contrast_fit_and_stay_harmless(tab, recommender_url, width, dark):
    tab.size(width, dark=dark)
    for page in ("", "users", "users/user-0", "requests", "requests/0"):
        tab.open(recommender_url + page)
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.run(CONTRAST) == [] and tab.run("document.documentElement.scrollWidth") <= width, page
        assert "owned" not in tab.run("document.title")
    assert tab.complaints == [] and all(request.startswith((recommender_url, "data:")) for request in tab.requests)


def test_pages_of_copies_have_contrast_fit_and_stay_harmless(tab, tmp_path):
    with InspectorServer(Inspector(write_copy_run(tmp_path / "copies", items=6)), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for width, dark in ((1280, False), (1280, True), (400, False)):
            tab.size(width, dark=dark)
            for page in ("copies", "copies/0", "copies/6"):
                tab.open(server.url + page)
                assert tab.run(CONTRAST) == [] and tab.run("document.documentElement.scrollWidth") <= width, page
                assert tab.run("document.title") != "owned"
        assert tab.complaints == [] and all(request.startswith((server.url, "data:")) for request in tab.requests)
        server.shutdown()


def test_candidates_change_in_place_and_keep_the_keyboard(tab, recommender_url):
    tab.open(recommender_url + "requests")
    tab.run("document.querySelector('[data-keys] a').focus()")
    tab.press("ArrowDown")
    tab.press("Enter")
    tab.until("location.pathname === '/requests/1' && document.readyState === 'complete'")
    tab.run("document.querySelector('#only').focus()")
    tab.run("(e => (e.value = 'taken', e.dispatchEvent(new Event('input', {bubbles: true}))))(document.activeElement)")
    tab.until("document.querySelector('#candidates .count').innerText === '2 candidates'")
    assert tab.run("document.activeElement.id") == "only" and "only=taken" in tab.run("location.search")
