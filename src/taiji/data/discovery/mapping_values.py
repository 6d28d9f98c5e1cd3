"""Arrange the guesses about files as the values of a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taiji.data.discovery.assign import Roles
from taiji.data.discovery.parts import Guess
from taiji.data.discovery.unusable import number_forms_of


def mapping_values(roles: Roles, guesses: Mapping[str, Guess], name: str) -> dict[str, Any]:
    """Arrange the guesses as the nested values of a mapping."""
    values: dict[str, Any] = {"name": name}
    files = {"items": roles.items or roles.events, "events": roles.events, "users": roles.users or roles.events}
    for section, table in files.items():
        if section != "users" or "users.user_id" in guesses:
            values[section] = {"file": table.path.name}
            if table.separator not in (None, ",") and not (
                table.separator == "\t" and table.path.name.removesuffix(".gz").endswith(".tsv")
            ):
                values[section]["separator"] = table.separator
            if table.header:
                values[section]["header"] = list(table.header)
            if forms := number_forms_of(guesses, section, table):
                values[section]["numbers"] = forms
    for key, guess in guesses.items():
        section, _, part = key.partition(".")
        value = list(guess.value) if isinstance(guess.value, tuple) else guess.value
        if not part:
            values[section] = value
        elif part.startswith("timestamp."):
            values[section]["timestamp"][part.partition(".")[2]] = value
        elif part == "timestamp":
            values[section]["timestamp"] = {"column": value}
        elif part == "numbers":
            values[section].setdefault("numbers", {}).update(value)
        elif part.startswith("labels."):
            values[section].setdefault("labels", {})[part.partition(".")[2]] = value
        elif section in values:
            values[section][part] = value
    head: dict[str, Any] = {key: values.pop(key) for key in ("name", "domain", "unusable") if key in values}
    return {**head, **values}
