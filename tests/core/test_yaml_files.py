"""The one reader of YAML."""

from __future__ import annotations

import pytest

from taiji.core.errors import TaijiError
from taiji.core.yaml_files import parse_yaml, read_yaml


def test_values_are_what_they_look_like():
    assert parse_yaml("a: [1, null]\nb: {c: 0.5, d: text}\n", "here") == {"a": [1, None], "b": {"c": 0.5, "d": "text"}}
    assert parse_yaml("", "here") is None


@pytest.mark.parametrize("text", ["a: 1\nb: 2\n'a': 3\n", "[{a: 1,\n\na: 2}]"])
def test_a_key_given_twice_is_an_error_that_names_it(text):
    with pytest.raises(TaijiError, match=r"(?s)here, line 3, key 'a'.*in line 1"):
        parse_yaml(text, "here")


def test_a_key_that_overrides_a_merged_one_is_not_given_twice():
    text = "base: &base {a: 1, b: 2}\nmore: {<<: *base, a: 3}\nsame: {<<: *base}\n"
    assert parse_yaml(text, "here")["more"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ["a: [", "\x00", "a: !!python/object:os.system x", "at: 2024-13-45"])
def test_what_is_no_yaml_names_its_place(text):
    with pytest.raises(TaijiError, match="here"):
        parse_yaml(text, "here")


def test_files_that_cannot_be_read_say_what_they_should_hold(tmp_path):
    with pytest.raises(TaijiError, match=r"(?s)Could not read the plan.*No such file.*draw one"):
        read_yaml(tmp_path / "none.yaml", "the plan", "draw one")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaijiError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml", "the plan", "draw one")


def test_a_mistake_is_told_by_line_and_column(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data:\n  source: [1\n")
    with pytest.raises(TaijiError) as caught:
        read_yaml(path, "the configuration", "check the path")
    assert "line 3, column 1: while parsing a flow sequence that begins in line 2: expected" in str(caught.value)
    path.write_bytes("name: Café".encode("latin-1"))
    with pytest.raises(TaijiError, match=r"(?s)byte 9\).*save it as UTF-8"):
        read_yaml(path, "the configuration", "check the path")
