"""Cards become HTML; nothing in them does unless the cards' own format says so."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.inspector.markdown import to_html


def test_the_format_that_cards_use():
    html = to_html(
        "# A\n\nTwo\nlines with `code` and **bold**.\n\n- one\n- two\n\n| h | i |\n|---|--:|\n| a | b \\| c |\n"
    )
    assert "<h1>A</h1>" in html and "<p>Two lines with <code>code</code> and <b>bold</b>.</p>" in html
    assert "<ul><li>one</li><li>two</li></ul>" in html
    assert "<td>a</td><td>b | c</td>" in html and "---" not in html


@given(st.text(alphabet="<>&\"'`*|#- \nab/", max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_tag_of_the_text_survives(text):
    html = to_html(text + "\n<script>x</script> `<b>` **<i>**")
    assert "<script" not in html and "<i>" not in html and "<b><" not in html


def test_names_from_the_data_make_no_links_pictures_or_code_blocks():
    html = to_html(
        "see [x](javascript:alert(1)), ![i](http://e.example/x.png), <http://e.example> &lt;b&gt;\n\n    deep\n"
    )
    assert "<a" not in html and "<img" not in html and "<pre" not in html
    assert "[x](javascript:alert(1))" in html and "&amp;lt;b&amp;gt;" in html
