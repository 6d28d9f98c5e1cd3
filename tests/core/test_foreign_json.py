"""JSON that somebody else wrote."""

from __future__ import annotations

import pytest

from taiji.core.foreign_json import parsed


def test_it_is_read_as_json_is() -> None:
    assert parsed(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert parsed("[1.50]", parse_float=str) == ["1.50"]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000], ids=["lists", "objects"])
def test_what_is_nested_too_deep_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match="too deep"):
        parsed(text)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '["a\\uD83D b"]'], ids=["alone", "key", "first half"])
def test_half_a_character_is_refused_that_no_file_can_hold(text):
    for kind in (text, text.encode()):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            parsed(kind)


def test_a_character_of_two_escapes_is_one():
    assert parsed('"\\ud83d\\ude00"') == "\U0001f600" and parsed('"\\\\ud800"') == "\\ud800"
