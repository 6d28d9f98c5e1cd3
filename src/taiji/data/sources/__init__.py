"""Named sources, sources of other packages and a user's own files, all read into the same checked tables."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from taiji.core.errors import ConfigError
from taiji.core.file_state import file_state
from taiji.core.settings import problem_text
from taiji.data.settings import DataSettings
from taiji.data.sources.source import FolderSource, Source

if TYPE_CHECKING:
    from taiji.data.schema import Tables

__all__ = ["FolderSource", "Source", "file_state", "find_source", "load_source", "read_source", "recognised"]

GROUP = "taiji.sources"
"""Entry points of other packages' sources."""
FILES = "taiji.data.sources.generic:Files"
OWN = {
    "completejourney": "taiji.data.sources.completejourney:CompleteJourney",
    "movielens": "taiji.data.sources.movielens:MovieLens",
    "amazon": "taiji.data.sources.amazon:Amazon",
    "sequences": "taiji.data.sources.sequences:Sequences",
    "world": "taiji.world.world_source:WorldSource",
}
"""This package's sources, kept here so that they work without installed metadata."""


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
        name_or_path: ``completejourney``; ``movielens:FOLDER``; ``amazon:FOLDER``; ``world:SCENARIO``; ``package.module:Name`` (or an entry
            point) of another package's source; or a path: a folder of a known layout, a folder with a ``mapping.yaml``, a mapping file, or (with
            ``mapping``) the folder of its files.
        mapping: a YAML file that gives each column its role (``docs/data.md``).
        seed: random seed of every sampled non-click and of the sample of users.
        users: keep a sample of this many users; None keeps all.
        non_clicks: sampled exposures without a click, per trip or per click; None takes the source's default.
        domain: overrides the source's own.

    Raises:
        TaijiError: the source does not exist, or its data are invalid.
    """
    options = {"users": users, "non_clicks": non_clicks, "domain": domain}
    try:
        settings = DataSettings.model_validate({"source": str(name_or_path), "mapping": mapping, **options})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError("A source cannot be read so.", where=str(name_or_path), found="; ".join(problems)) from error
    from taiji.data.reading_checks import warn

    tables = read_source(settings, seed)
    warn(tables.reading)
    return tables


def read_source(settings: DataSettings, seed: int = 0) -> Tables:
    """Read the source that the settings name into checked tables with their reading report; see :func:`load_source`."""
    from taiji.data.reading_survey import surveyed
    from taiji.data.schema import validate

    tables = surveyed(validate(find_source(settings).load(settings, seed)))
    return tables if settings.domain is None else replace(tables, domain=settings.domain)


def find_source(settings: DataSettings) -> Source:
    """Return the source that the settings name.

    Raises:
        ConfigError: no source has that name or recognises the path.
    """
    source, known = settings.source, _references()
    name, _, argument = source.partition(":")
    path = Path(source).expanduser()
    files = _load(FILES)
    if settings.mapping is not None or files.recognises(path):
        return files(source)
    if name in known:
        found = _load(known[name])
        if argument or not found.takes:
            return found(argument)
    if path.exists():
        layout = recognised(path)
        if layout is not None:
            return layout
    elif argument and name not in known:
        attribute, _, rest = argument.partition(":")
        return _load(f"{name}:{attribute}")(rest)
    named = ", ".join(f"{key}:{takes}" if (takes := _load(known[key]).takes) else key for key in known)
    raise ConfigError(
        "Unknown data source.",
        where=source,
        expected=f"{named}, package.module:Name of a source, a folder of a known layout, or a mapping file (.yaml)",
        found="a folder of no known layout"
        if path.is_dir()
        else "a file"
        if path.is_file()
        else f"no such folder, seen from {Path.cwd()}"
        + (f" ({name} needs a folder: {name}:FOLDER)" if name in known else ""),
        fix="put a mapping.yaml beside your files (docs/data.md), or name one with --set data.mapping=FILE",
    )


def recognised(path: Path) -> Source | None:
    """Return the source that recognises a path's layout, except files with a mapping; None if there is none."""
    classes = (_load(reference) for reference in _references().values())
    return next((found(str(path)) for found in classes if found.recognises(path)), None)


def _references() -> dict[str, str]:
    """Return import paths by name: our sources, then those of other packages by name."""
    others = {point.name: point.value for point in entry_points(group=GROUP) if point.name not in OWN}
    return {**OWN, **dict(sorted(others.items()))}


def _load(reference: str) -> type[Source]:
    from taiji.core.component import as_subclass, find_class  # with numpy, which names and state need not load

    return as_subclass(
        find_class(reference, GROUP, "data.source"),
        Source,  # type: ignore[type-abstract]
        "a data source",
        "data.source",
        path="taiji.data.sources.Source",
        fix="give it load(settings, seed) and state(settings); docs/data.md has an example",
    )
