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
