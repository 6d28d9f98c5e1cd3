"""The configuration as a page: every key with its default, its bounds and what it means, read from the settings themselves."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from taiji.config import Config
from taiji.core.composition import section_of
from taiji.core.settings import Settings


def reference(model: type[Config] = Config) -> str:
    """Return Markdown tables of all settings, one per section; `docs/configuration.md` is this text.

    Args:
        model: class of the configuration, with the sections of the stages and components that it names.
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

One YAML file, one section per package. What it leaves out comes from the preset it names (`preset: demo`, `laptop` or `paper`), then from
the defaults below. `taiji config --preset demo` prints the whole configuration ready to be edited; `--set section.key=value` overrides
one key on the command line. This page is `taiji config --describe`.
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
    """Return the choices or the range, where the schema knows them."""
    schema = model.model_json_schema()["properties"][name]
    schema = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    if "enum" in schema:
        return " One of " + ", ".join(f"`{choice}`" for choice in schema["enum"]) + "."
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
    return f" ({', '.join(limits)})" if limits else ""


def _text(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())
