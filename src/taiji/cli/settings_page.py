"""Generate the page of the configuration: every key with its default, its bounds and its meaning, read from the settings."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from taiji.config import Config
from taiji.core.composition import section_of
from taiji.core.settings import Settings


def reference(model: type[Config] = Config) -> str:
    """Return Markdown tables of all settings, one per section. This is the text of `docs/configuration.md`.

    Args:
        model: class of the configuration, including the sections of its stages and components.
    """
    top = "\n".join(
        f"| `{name}` | {_default(field)} | {_text(field.description)} |"
        for name, field in model.model_fields.items()
        if section_of(field) is None
    )
    parts = [INTRODUCTION, "## The run\n", HEAD + top]
    for name, field in model.model_fields.items():
        if section := section_of(field):
            parts += _section(name, section)
    return "\n".join(parts) + "\n"


INTRODUCTION = """# Configuration

The configuration is one YAML file with one section per package. Missing keys come from its preset (`preset: demo`, `laptop` or `paper`), and
otherwise from the defaults below. `taiji config --preset demo` prints the whole configuration for editing; `--set section.key=value` overrides
one key on the command line. This page is the output of `taiji config --describe`.
"""
HEAD = "| key | default | meaning |\n|---|---|---|\n"


def _section(path: str, model: type[Settings]) -> list[str]:
    rows = [
        f"| `{name}` | {_default(field)} | {_text(field.description)}{_bounds(model, name)} |"
        for name, field in model.model_fields.items()
        if section_of(field) is None
    ]
    parts = [f"\n## `{path}`\n", f"{_text(model.__doc__)}\n", HEAD + "\n".join(rows)] if rows else []
    for name, field in model.model_fields.items():
        if section := section_of(field):
            parts += _section(f"{path}.{name}", section)
    return parts


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else _value(field.get_default(call_default_factory=True))  # type: ignore[call-arg]


def _value(value: Any) -> str:
    return f"`{json.dumps(TypeAdapter(Any).dump_python(value, mode='json'))}`"


def _bounds(model: type[Settings], name: str) -> str:
    """Return the choices or the range of a setting, if the schema has them."""
    schema = model.model_json_schema()["properties"][name]
    schema = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    if "enum" in schema:
        return " One of " + ", ".join(f"`{choice}`" for choice in schema["enum"]) + "."
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
    return f" ({', '.join(limits)})" if limits else ""


def _text(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())
