"""JSON lines on standard error, from a fixed set of facts: no key, user, item, prompt or answer is ever passed here."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from taiji.serving.clock import wall_us


def log(event: str, **facts: str | int | float | bool | None) -> None:
    """Write one line. Facts are counts, durations, names of routes, keys' names, releases and places in the code."""
    print(json.dumps({"time": wall_us() / 1e6, "event": event, **facts}), file=sys.stderr, flush=True)


def where(error: BaseException) -> str:
    """``ValueError at generate.py:120``: the kind and place of an error, but not its text, which may quote a person."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
