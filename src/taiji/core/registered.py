"""Entry points of the installed packages, cached until ``sys.path`` changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import metadata

Places = tuple[tuple[str, int], ...]


def entry_points(*, group: str) -> metadata.EntryPoints:
    """Return the entry points of a group.

    ``importlib.metadata`` reads the files of all installed packages in every call, which takes milliseconds. Here they
    are read again only if ``sys.path`` or one of its folders has changed.
    """
    return _reader(_places())(group)


@lru_cache(maxsize=1)
def _reader(places: Places) -> Callable[[str], metadata.EntryPoints]:
    found = metadata.entry_points()
    return lambda group: found.select(group=group)


def _places() -> Places:
    """Return the folders of ``sys.path``, each with its modification time in nanoseconds; −1 if it is unreadable."""
    found = []
    for path in sys.path:
        changed = -1
        with suppress(OSError):
            changed = os.stat(path or ".").st_mtime_ns
        found.append((path, changed))
    return tuple(found)
