"""Describe the differences between a finished stage and the current settings and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 3
"""Number of changed settings listed by name; the rest are counted."""


def changes(manifest: Mapping[str, Any], depends_on: Mapping[str, Any]) -> str:
    """Describe how a stage's dependencies differ from those in its manifest.

    Args:
        manifest: manifest of the finished stage.
        depends_on: current values of its dependencies.
    """
    notes = []
    settings = _changed(manifest.get("settings"), depends_on["settings"])
    if settings:
        more = f" and {len(settings) - SHOWN} more" if len(settings) > SHOWN else ""
        notes.append(f"settings changed: {', '.join(settings[:SHOWN])}{more}")
    before, now = manifest.get("inputs") or {}, depends_on["inputs"]
    inputs = [name for name in now if before.get(name) != now[name]]
    if inputs:
        notes.append(f"inputs changed: {', '.join(inputs)}")
    if manifest.get("outside") != depends_on["outside"]:
        notes.append("external files changed (name, size or modification time)")
    for key, what in (("version", "version of taiji"), ("seed", "seed"), ("parameters", "parameters")):
        if manifest.get(key) != depends_on.get(key):
            notes.append(f"{what} changed: {manifest.get(key)} → {depends_on.get(key)}")
    if code := _changed_code(manifest, depends_on):
        notes.append(f"code of another package changed: {', '.join(code)}")
    return "; ".join(notes) or "it belongs to another run"


def _changed_code(manifest: Mapping[str, Any], depends_on: Mapping[str, Any]) -> list[str]:
    """Return the references, such as ``package.module:Name``, to code of other packages that has changed."""
    stage = [str(depends_on["class"]).partition(" ")[0]] if manifest.get("class") != depends_on["class"] else []
    before, now = (found.get("foreign code") or {} for found in (manifest, depends_on))
    return [*stage, *(name for name in {**before, **now} if before.get(name) != now.get(name))]


def _changed(before: Any, now: Any, key: str = "") -> list[str]:
    """Return every setting that differs, as `key: before → now`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        at = {name: f"{key}.{name}" if key else name for name in (*now, *before)}
        new = [f"{at[name]}: new, {now[name]}" for name in now if name not in before]
        removed = [f"{at[name]}: removed" for name in before if name not in now]
        both = (_changed(before[name], now[name], at[name]) for name in now if name in before)
        return [*(line for lines in both for line in lines), *new, *removed]
    before, now = (list(value) if isinstance(value, tuple) else value for value in (before, now))
    return [] if before == now else [f"{key}: {before} → {now}"]
