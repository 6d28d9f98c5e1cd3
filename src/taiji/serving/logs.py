"""Log of the service, one event with named values per line.

Users, items, prompts, answers and the secrets of API keys are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path

from taiji.serving.clock import wall_us

logger = logging.getLogger("taiji.serving")


class JsonLines(logging.Handler):
    """Handler that writes one JSON line per event to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line immediately."""
        facts = {"time": wall_us() / 1e6, "event": record.getMessage(), **getattr(record, "facts", {})}
        print(json.dumps(facts), file=sys.stderr, flush=True)


class LibraryLines(logging.Handler):
    """Handler that writes warnings of libraries as JSON lines.

    The texts and tracebacks of the warnings are left out, because they may contain personal data.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line with the logger, the level, the place in the code and, for an error, its type."""
        facts = {"logger": record.name, "level": record.levelname, "place": f"{record.filename}:{record.lineno}"}
        if record.exc_info and record.exc_info[1]:
            facts["error"] = where(record.exc_info[1])
        print(json.dumps({"time": wall_us() / 1e6, "event": "library", **facts}), file=sys.stderr, flush=True)


def libraries_to_standard_error() -> None:
    """Send warnings of libraries to standard error as JSON; for processes of the service."""
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryLines) for handler in root.handlers):
        root.addHandler(LibraryLines(logging.WARNING))


def to_standard_error() -> None:
    """Send the log to standard error; for the programs that run the service, not for those that import it."""
    if not any(isinstance(handler, JsonLines) for handler in logger.handlers):
        logger.addHandler(JsonLines())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def log(event: str, **facts: str | int | float | bool | None) -> None:
    """Log one event, as a warning if it contains an error.

    Args:
        event: constant text of a few words.
        facts: counts, durations, names of routes and keys, releases, and places in the code.
    """
    logger.log(logging.WARNING if "error" in facts else logging.INFO, event, extra={"facts": facts})


def where(error: BaseException) -> str:
    """Return the type of an error and its place in the code, such as ``ValueError at generate.py:120``.

    The text of the error is left out, because it may contain personal data.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
