"""Generate the page of the configuration: every key with its default, its values in the presets, its bounds and its
meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from taiji.config import PRESETS, Config, load_config
from taiji.core.composition import section_of
from taiji.core.settings import Settings


def reference(model: type[Config] = Config) -> str:
    """Return Markdown tables of all settings, one per section. This is the text of `docs/configuration.md`.

    Args:
        model: class of the configuration, including the sections of its stages and components.
    """
    presets = {name: load_config(preset=name) for name in PRESETS}
    parts = [INTRODUCTION, "## The run\n", _table(model, presets)]
    for name, field in model.model_fields.items():
        if section := section_of(field):
            parts += _section(name, section, _below(presets, name, section))
    return "\n".join(parts) + "\n"


INTRODUCTION = """# Configuration

The configuration is one YAML file with one section per package. Missing keys come from its preset (`preset: demo`, `laptop` or `paper`), and
otherwise from the defaults below. `taiji config --preset demo` prints the whole configuration for editing; `--set section.key=value` overrides
one key on the command line. This page is the output of `taiji config --describe`.

The column *presets* names the presets whose value differs from the default, each with this value; all other presets keep the default. A preset is made for one log, named by its `data.source`. If you choose another log, the preset's `data` and `ladder.logs` do not apply.
"""


def _section(path: str, model: type[Settings], presets: Mapping[str, Settings]) -> list[str]:
    parts = []
    if any(section_of(field) is None for field in model.model_fields.values()):
        parts = [f"\n## `{path}`\n", f"{_text(model.__doc__)}\n", _table(model, presets)]
    for name, field in model.model_fields.items():
        if section := section_of(field):
            parts += _section(f"{path}.{name}", section, _below(presets, name, section))
    return parts


def _table(model: type[Settings], presets: Mapping[str, Settings]) -> str:
    """Return the table of the keys of a section, with a column for the presets if any of them sets one of the keys."""
    fields = {name: field for name, field in model.model_fields.items() if section_of(field) is None}
    differing = {name: _differing(name, field, presets) for name, field in fields.items()}
    shown = any(differing.values())
    head = ["key", "default", *(["presets"] if shown else []), "meaning"]
    lines = [_row(head), "|---" * len(head) + "|"]
    for name, field in fields.items():
        values = [differing[name]] if shown else []
        lines.append(_row([f"`{name}`", _default(field), *values, f"{_text(field.description)}{_bounds(model, name)}"]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _below(presets: Mapping[str, Settings], name: str, section: type[Settings]) -> dict[str, Settings]:
    """Return a section of each preset. A section of another class, for instance of another model, is left out."""
    found = {preset: getattr(values, name, None) for preset, values in presets.items()}
    return {preset: values for preset, values in found.items() if type(values) is section}


def _differing(name: str, field: FieldInfo, presets: Mapping[str, Settings]) -> str:
    """Return the values of the presets that differ from the default, with the names of the presets."""
    found = {preset: _value(getattr(values, name)) for preset, values in presets.items()}
    return ", ".join(f"{preset} {value}" for preset, value in found.items() if value != _default(field))


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
