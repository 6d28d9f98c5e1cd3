"""End of every command: a result for people or scripts, one message for a user's error, and a way back after Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from taiji.core.errors import NoSpace, TaijiError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


class _WayBack:
    """The command that goes on with what is under way; empty where none does."""

    command = ""


def can_go_on(command: str) -> None:
    """Note the command that goes on with what is under way, for the message after an interruption or a full disk."""
    _WayBack.command = command


def emit_json(path: Path, value: object) -> bool:
    """Write a result as JSON; ``-`` means standard output. Returns whether standard output was taken."""
    import json

    if str(path) == "-":
        print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str))
        return True
    from taiji.core.artifacts import write_json

    write_json(path, value)
    return False


def guarded(command: Callable[[], None]) -> None:
    """Call a command line; its mistakes, interruption and full disks end in one message and an exit code.

    2 is a user's error, 130 an interruption, 1 a check that failed or an error of ours (with its traceback).
    """
    can_go_on("")  # an earlier command's, where one process runs several
    try:
        command()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _interrupted()
        raise
    except TaijiError as error:
        print(f"Error: {error}{_go_on() if isinstance(error, NoSpace) else ''}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader has gone (| head): nobody is left to tell
        sys.exit(1)
    except Exception as error:
        if isinstance(error, ImportError):
            _missing_package(error)
        if not _no_space(error):
            raise
        print(
            f"Error: The disk is full: {error}\n  what to do: make room; what was finished before is whole{_go_on()}",
            file=sys.stderr,
        )
        sys.exit(2)


def _missing_package(error: ImportError) -> None:
    """End with the line that installs the extra a package belongs to; return where it belongs to none."""
    from taiji.core.optional import explain

    if missing := explain(error):
        print(f"Error: {missing}", file=sys.stderr)
        sys.exit(2)


def _interrupted() -> None:
    print(
        f"\nInterrupted; finished stages and chunks are kept. Go on with: {_WayBack.command}"
        if _WayBack.command
        else "\nInterrupted.",
        file=sys.stderr,
    )
    # An interruption that went through an exec of a text (a dataclass being made, while a library loads) leaves a mark by which
    # Python ends itself with SIGINT in place of the exit code, handled or not; the next exec of a text takes the mark away.
    exec("")
    sys.exit(INTERRUPTED)


def _go_on() -> str:
    return f"\n  go on with: {_WayBack.command}" if _WayBack.command else ""


def _no_space(error: BaseException) -> bool:
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
