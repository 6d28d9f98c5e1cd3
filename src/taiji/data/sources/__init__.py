"""Data sources: named datasets, sources of other packages, and a user's own files. Every source is read into validated
tables of the same form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from taiji.core.errors import ConfigError
from taiji.core.file_state import file_state
from taiji.core.registered import entry_points
from taiji.core.settings import problem_text
from taiji.data.settings import DataSettings
from taiji.data.sources.source import FolderSource, Source

if TYPE_CHECKING:
    from taiji.data.schema import Tables

__all__ = ["FolderSource", "Source", "file_state", "find_source", "load_source", "read_source", "recognised"]

GROUP = "taiji.sources"
"""Group of the entry points under which other packages register their sources."""
FILES = "taiji.data.sources.generic:Files"
OWN = {
    "completejourney": "taiji.data.sources.completejourney:CompleteJourney",
    "movielens": "taiji.data.sources.movielens:MovieLens",
    "amazon": "taiji.data.sources.amazon:Amazon",
    "sequences": "taiji.data.sources.sequences:Sequences",
    "world": "taiji.world.world_source:WorldSource",
}
"""Import paths of this package's sources, by name. They are listed here so that they work even if the metadata of the
package is not installed."""


def load_source(
    name_or_path: str | Path,
    mapping: str | Path | None = None,
    seed: int = 0,
    *,
    users: int | None = None,
    non_clicks: int | None = None,
    domain: str | None = None,
) -> Tables:
    """Read a source into validated tables.

    Args:
        name_or_path: ``completejourney``; ``movielens:FOLDER``; ``amazon:FOLDER``; ``sequences:FILE``;
            ``world:SCENARIO``; ``package.module:Name`` (or the name of an entry point) of another package's source; or
            a path: a folder of MovieLens or Amazon files, a folder with a ``mapping.yaml``, a mapping file, or (if
            ``mapping`` is given) the folder of the files that the mapping describes.
        mapping: YAML file that assigns a role to each column (``docs/data.md``).
        seed: random seed for sampling non-clicks and users.
        users: number of users to sample; None keeps all users.
        non_clicks: largest number of exposures without a click to sample, per trip or per click; None uses the default
            of the source.
        domain: domain of the items, which overrides the domain of the source.

    Raises:
        TaijiError: the source does not exist, or its data is invalid.
    """
    options = {"users": users, "non_clicks": non_clicks, "domain": domain}
    try:
        settings = DataSettings.model_validate({"source": str(name_or_path), "mapping": mapping, **options})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError(
            "The options of a source are invalid.", where=str(name_or_path), found="; ".join(problems)
        ) from error
    from taiji.data.reading_checks import warn

    tables = read_source(settings, seed)
    warn(tables.reading)
    return tables


def read_source(settings: DataSettings, seed: int = 0) -> Tables:
    """Read the source that the settings name into validated tables with a reading report; see :func:`load_source`."""
    from taiji.data.reading_survey import surveyed
    from taiji.data.schema import validate

    tables = surveyed(validate(find_source(settings).load(settings, seed)))
    return tables if settings.domain is None else replace(tables, domain=settings.domain)


def find_source(settings: DataSettings) -> Source:
    """Return the source that the settings name.

    Raises:
        ConfigError: no source has this name or recognises the path.
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
        expected=f"{named}, package.module:Name of a source class, a folder with a known layout, or a mapping file (.yaml)",
        found="a folder whose layout is not recognised"
        if path.is_dir()
        else "a file"
        if path.is_file()
        else f"no such path, relative to {Path.cwd()}"
        + (f" (write {name}:{_load(known[name]).takes})" if name in known else ""),
        fix="add a mapping.yaml to the folder of your files (docs/data.md), or name one with --set data.mapping=FILE",
    )


def recognised(path: Path) -> Source | None:
    """Return the source that recognises the layout of a path, or None. Files with a mapping are not considered."""
    classes = (_load(reference) for reference in _references().values())
    return next((found(str(path)) for found in classes if found.recognises(path)), None)


def _references() -> dict[str, str]:
    """Return import paths by name: the sources of this package first, then the others in alphabetical order."""
    others = {point.name: point.value for point in entry_points(group=GROUP) if point.name not in OWN}
    return {**OWN, **dict(sorted(others.items()))}


def _load(reference: str) -> type[Source]:
    from taiji.core.component import (  # imports numpy, which listing names and states does not need
        as_subclass,
        find_class,
    )

    return as_subclass(
        find_class(reference, GROUP, "data.source"),
        Source,  # type: ignore[type-abstract]
        "a data source",
        "data.source",
        path="taiji.data.sources.Source",
        fix="give the class the methods load(settings, seed) and state(settings); docs/data.md has an example",
    )
