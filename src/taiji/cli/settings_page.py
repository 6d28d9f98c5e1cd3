"""The configuration as a page: every key with its default, its bounds and what it means, read from the settings themselves."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from taiji.config import Config
from taiji.core.settings import Settings


def reference() -> str:
    """Markdown tables of all settings, one a section; `docs/configuration.md` is this text."""
    top = "\n".join(
        f"| `{name}` | {_default(field)} | {_text(field.description)} |"
        for name, field in Config.model_fields.items()
        if not _nested(field)
    )
    parts = [INTRODUCTION, "## The run\n", HEAD + top]
    for name, field in Config.model_fields.items():
        if _nested(field):
            parts += _section(name, field.annotation, getattr(Config(), name))
    return "\n".join(parts) + "\n"


INTRODUCTION = """# Configuration

One YAML file, one section a room. What it leaves out comes from the preset it names (`preset: demo`, `laptop` or `paper`), then from
the defaults below. `taiji config --preset demo` prints the whole configuration ready to be edited; `--set section.key=value` overrides
one key on the command line. This page is `taiji config --describe`.
"""
HEAD = "| key | default | meaning |\n|---|---|---|\n"


def _nested(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Settings)


def _section(path: str, model: Any, values: Settings) -> list[str]:
    rows = [
        f"| `{name}` | {_value(getattr(values, name))} | {_text(field.description)}{_bounds(model, name)} |"
        for name, field in model.model_fields.items()
        if not _nested(field)
    ]
    parts = [f"\n## `{path}`\n", f"{_text(model.__doc__)}\n", HEAD + "\n".join(rows)] if rows else []
    for name, field in model.model_fields.items():
        if _nested(field):
            parts += _section(f"{path}.{name}", field.annotation, getattr(values, name))
    return parts


def _default(field: FieldInfo) -> str:
    return _value(field.get_default(call_default_factory=True))  # type: ignore[call-arg]


def _value(value: Any) -> str:
    return f"`{json.dumps(TypeAdapter(Any).dump_python(value, mode='json'))}`"


def _bounds(model: Any, name: str) -> str:
    """The choices or the range, where the schema knows them."""
    schema = model.model_json_schema()["properties"][name]
    schema = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    if "enum" in schema:
        return " One of " + ", ".join(f"`{choice}`" for choice in schema["enum"]) + "."
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
    return f" ({', '.join(limits)})" if limits else ""


def _text(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())
