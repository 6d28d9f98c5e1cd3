"""Read YAML: configurations, mappings, presets, and values on the command line. A repeated key is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from taiji.core.errors import ConfigError

MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Loader that rejects repeated keys. PyYAML's own loader silently keeps the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                line = key.start_mark.line + 1
                if (key.tag, key.value) in first:
                    raise _RepeatedKey(str(key.value), first[key.tag, key.value], line)
                first[key.tag, key.value] = line
        return node


class _RepeatedKey(Exception):
    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(key)
        self.key, self.first, self.second = key, first, second


def parse_yaml(text: str, where: str, **problem: str) -> Any:
    """Parse a YAML text.

    Args:
        text: YAML text.
        where: origin of the text, for messages.
        problem: ``message``, ``expected`` and ``fix`` of the error if the text is not YAML.

    Raises:
        ConfigError: the text is not YAML, or a key is repeated in a mapping.
    """
    try:
        return yaml.load(text, _Loader)
    except _RepeatedKey as repeated:
        raise ConfigError(
            "A key is repeated.",
            where=f"{where}, line {repeated.second}, key {repeated.key!r}",
            expected="unique keys",
            found=f"the same key in line {repeated.first}",
            fix="remove one of them",
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
        raise ConfigError(
            problem.get("message", "The text is not valid YAML."),
            where=where,
            expected=problem.get("expected", "YAML"),
            found=_problem(error),
            fix=problem.get("fix", "correct the text"),
        ) from error


def _problem(error: yaml.YAMLError | ValueError) -> str:
    """Describe the line, the column and the problem in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    at, start = error.problem_mark, error.context_mark
    context = f" {error.context}" if error.context else ""
    if context and start is not None and start.line != at.line:
        context += f" that begins in line {start.line + 1}"
    return f"line {at.line + 1}, column {at.column + 1}:{context}{':' if context else ''} {error.problem}"


def yaml_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False).strip()


def read_yaml(path: Path, what: str, fix: str) -> Any:
    """Read a YAML file.

    Args:
        path: path of the file.
        what: content of the file, for messages, such as ``the configuration``.
        fix: advice if the file cannot be opened.

    Raises:
        ConfigError: the file cannot be opened, is not in UTF-8, or is invalid (see :func:`parse_yaml`).
    """
    message, expected = f"Could not read {what}.", "a YAML file in UTF-8"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else f"{error.reason} (byte {error.start})"
        fix = fix if isinstance(error, OSError) else "save it as UTF-8"
        raise ConfigError(message, where=str(path), expected=expected, found=found, fix=fix) from error
    return parse_yaml(text, str(path), message=message, expected=expected, fix="correct the file")
