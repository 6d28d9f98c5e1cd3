"""The one reader of YAML: configurations, mappings, presets, values on the command line. A key given twice is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from taiji.core.errors import ConfigError

MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Loader that rejects a repeated key, of which PyYAML's own silently keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                line = key.start_mark.line + 1
                if (key.tag, key.value) in first:
                    raise _Twice(str(key.value), first[key.tag, key.value], line)
                first[key.tag, key.value] = line
        return node


class _Twice(Exception):
    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(key)
        self.key, self.first, self.second = key, first, second


def parse_yaml(text: str, where: str, **problem: str) -> Any:
    """The value of a YAML text.

    Args:
        text: YAML.
        where: it comes from, for messages.
        problem: ``message``, ``expected`` and ``fix`` of the error for a text that is not YAML.

    Raises:
        ConfigError: not YAML, or a mapping with a key twice (naming key and lines).
    """
    try:
        return yaml.load(text, _Loader)
    except _Twice as twice:
        raise ConfigError(
            "A key is given twice.",
            where=f"{where}, line {twice.second}, key {twice.key!r}",
            expected="each key once",
            found=f"the same key in line {twice.first}",
            fix="take one of them out",
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ConfigError(
            problem.get("message", "This is not YAML."),
            where=where,
            expected=problem.get("expected", "YAML"),
            found=_problem(error),
            fix=problem.get("fix", "correct it there"),
        ) from error


def _problem(error: yaml.YAMLError | ValueError) -> str:
    """The line, the column and what is wrong there, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    at, began = error.problem_mark, error.context_mark
    begun = f" {error.context}" if error.context else ""
    if begun and began is not None and began.line != at.line:
        begun += f" that begins in line {began.line + 1}"
    return f"line {at.line + 1}, column {at.column + 1}:{begun}{':' if begun else ''} {error.problem}"


def yaml_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False).strip()


def read_yaml(path: Path, what: str, fix: str) -> Any:
    """The value of a YAML file.

    Args:
        path: the file.
        what: it holds, for messages: ``the configuration``.
        fix: what to do when it cannot be read at all.

    Raises:
        ConfigError: unreadable, not in UTF-8, or as :func:`parse_yaml`.
    """
    message, expected = f"Could not read {what}.", "a YAML file in UTF-8"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else f"{error.reason} (byte {error.start})"
        fix = fix if isinstance(error, OSError) else "save it as UTF-8"
        raise ConfigError(message, where=str(path), expected=expected, found=found, fix=fix) from error
    return parse_yaml(text, str(path), message=message, expected=expected, fix="correct the file there")
