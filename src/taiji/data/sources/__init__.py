"""Named sources and files of one's own, all ending in the same checked tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from taiji.core.errors import TaijiError

if TYPE_CHECKING:
    from taiji.data.schema import Tables

MAPPING = "mapping.yaml"
"""The mapping's name in a folder that brings its own."""


def load_source(
    name_or_path: str | Path,
    mapping: str | Path | None = None,
    seed: int = 0,
    *,
    users: int | None = None,
    non_clicks: int | None = None,
    domain: str | None = None,
) -> Tables:
    """Read a source into checked tables.

    Args:
        name_or_path: ``completejourney``; ``movielens:FOLDER``; ``amazon:FOLDER``; or a path: a folder whose layout
            is known, a folder with a ``mapping.yaml``, a mapping file, or (with ``mapping``) the folder its files lie in.
        mapping: a YAML file that says which column is what (``docs/data.md``).
        seed: of every sampled non-click and of the sample of users.
        users: keep a sample of this many users; None keeps all.
        non_clicks: sampled exposures without a click, per trip or per click; None takes the source's default.
        domain: instead of the source's own.

    Raises:
        TaijiError: when nothing is found there, or what is found is not right.
    """
    from taiji.data.schema import validate

    tables = validate(_read(str(name_or_path), mapping, seed, users, non_clicks))
    return tables if domain is None else replace(tables, domain=domain)


def source_files(source: str, mapping: str | Path | None = None) -> list[Path]:
    """The user's own files that :func:`load_source` reads; none for data that comes as a package."""
    name, _, rest = source.partition(":")
    path = Path(rest if name in ("movielens", "amazon") and rest else source).expanduser()
    described, beside = _mapping(path, mapping)
    if described is not None:
        from taiji.data.sources.column_mapping import read_mapping

        plan = read_mapping(described)
        named = {part.file for part in (plan.items, plan.events, plan.users) if part is not None}
        return [described, *((beside or described.parent) / file for file in sorted(named))]
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []


def _mapping(path: Path, mapping: str | Path | None) -> tuple[Path | None, Path | None]:
    """The mapping in force and the folder its files lie in (None: beside it); no mapping for what needs none."""
    if mapping is None and path.suffix.lower() in (".yaml", ".yml"):
        return path, None
    if mapping is None and (path / MAPPING).is_file():
        mapping = path / MAPPING
    return (None, None) if mapping is None else (Path(mapping).expanduser(), path if path.is_dir() else None)


def _read(source: str, mapping: str | Path | None, seed: int, users: int | None, non_clicks: int | None) -> Tables:
    name, _, rest = source.partition(":")
    folder = Path(rest).expanduser()
    path = Path(source).expanduser()
    if mapping is None and source == "completejourney":
        from taiji.data.sources.completejourney import load as load_completejourney

        return load_completejourney(seed=seed, users=users, non_clicks=non_clicks)
    described, beside = _mapping(path, mapping)
    if described is not None:
        from taiji.data.sources.generic import load as load_generic

        return load_generic(described, beside, seed=seed, users=users, non_clicks=non_clicks)
    import taiji.data.sources.amazon as amazon
    import taiji.data.sources.movielens as movielens

    if name == "movielens" and rest:
        return movielens.load(folder, seed=seed, users=users, non_clicks=non_clicks)
    if name == "amazon" and rest:
        return amazon.load(folder, seed=seed, users=users, non_clicks=non_clicks)
    if path.is_dir() and movielens.layout(path):
        return movielens.load(path, seed=seed, users=users, non_clicks=non_clicks)
    if path.is_dir() and amazon.layout(path):
        return amazon.load(path, seed=seed, users=users, non_clicks=non_clicks)
    raise TaijiError(
        "Unknown data source.",
        where=source,
        expected="completejourney, movielens:FOLDER, amazon:FOLDER, a folder of a known layout, or a mapping file (.yaml)",
        found="a folder of no known layout"
        if path.is_dir()
        else "a file"
        if path.is_file()
        else "no such folder"
        + (f" ({name} needs a folder: {name}:FOLDER)" if source in ("movielens", "amazon") else ""),
        fix=f"put a {MAPPING} beside your files (docs/data.md), or name one with --set data.mapping=FILE",
    )
