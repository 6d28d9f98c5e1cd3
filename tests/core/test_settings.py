"""What a message says about a value that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from taiji.core.settings import Settings, problem_text


class Inner(Settings):
    size: int = 1


class Some(Settings):
    names: tuple[str, ...] = ()
    share: float = Field(default=0.5, ge=0, le=1)
    steps: int = 1
    on: bool = False
    where: Path | None = None
    rule: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    table: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("names", "a", "should be a list, such as [a, b]"),
        ("names", [1], "should be text"),
        ("share", "much", "should be a number"),
        pytest.param("share", 1.5, "should be less than or equal to 1", id="too much"),
        pytest.param("share", float("inf"), "should be a finite number", id="infinite"),
        ("steps", "x", "should be an integer"),
        pytest.param("steps", 1.5, "should be an integer", id="half a step"),
        ("steps", None, "should be an integer"),
        ("on", "maybe", "should be true or false"),
        ("where", 3, "should be a path"),
        ("rule", "c", "should be 'a' or 'b'"),
        ("inner", 3, "should be a section with keys, such as {key: value}"),
        ("table", [1], "should be a section with keys, such as {key: value}"),
        ("steps2", 1, "is an unknown key"),
    ],
)
def test_it_is_said_in_words_that_need_no_python(key, value, said):
    with pytest.raises(ValidationError) as caught:
        Some.model_validate({key: value})
    assert problem_text(caught.value.errors()[0]) == said
