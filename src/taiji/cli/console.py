"""Output and exit codes of every command: JSON results, one message for a user's error, and after Ctrl-C or SIGTERM the
command with which to resume."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from taiji.core.errors import NoSpace, TaijiError

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and SIGTERM: 128 + the number of the signal, as in shells."""


class _Continuation:
    """Command that continues the current work; empty if there is none."""

    command = ""


def can_go_on(command: str) -> None:
    """Set the command that continues the current work, for the message after an interruption or a full disk."""
    _Continuation.command = command


def emit_json(path: Path, value: object) -> bool:
    """Write a result as JSON, to standard output if the path is ``-``. Return True if it was written to standard
    output."""
    import json

    if str(path) == "-":
        print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str))
        return True
    from taiji.core.artifacts import write_json

    write_json(path, value)
    return False


def guarded(command: Callable[[], None]) -> None:
    """Run a command line, and turn errors, interruptions and full disks into one message and an exit code.

    The exit code is 2 for a user's error, a missing package or a full disk, 130 for Ctrl-C, 143 for SIGTERM, and 1 for
    a failed check or an internal error (with its traceback).
    """
    can_go_on("")  # one process may run several commands
    if threading.current_thread() is threading.main_thread():  # Python allows handlers to be set only there
        signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except KeyboardInterrupt:
        _interrupted(INTERRUPTED)
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            _interrupted(stop.code)
        raise
    except TaijiError as error:
        print(f"Error: {error}{_continuation_line() if isinstance(error, NoSpace) else ''}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has closed the pipe (| head)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, ImportError):
            _missing_package(error)
        if not _is_disk_full(error):
            raise
        print(
            f"Error: The disk is full: {error}\n  what to do: free some space; stages that finished before are intact{_continuation_line()}",
            file=sys.stderr,
        )
        sys.exit(2)


def _missing_package(error: ImportError) -> None:
    """Exit with the command that installs the extra of a missing package. Return if the package belongs to no extra."""
    from taiji.core.optional import explain

    if missing := explain(error):
        print(f"Error: {missing}", file=sys.stderr)
        sys.exit(2)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _interrupted(code: int) -> None:
    what = "Interrupted" if code == INTERRUPTED else "Terminated"
    print(
        f"\n{what}; finished stages and partitions are kept. Continue with: {_Continuation.command}"
        if _Continuation.command
        else f"\n{what}.",
        file=sys.stderr,
    )
    # Dataclasses are created by exec of a string, for example while a library is imported. If Ctrl-C interrupts such an
    # exec, Python sets a flag and ends with SIGINT instead of the exit code, even if the interruption is handled. The
    # next exec of a string clears this flag.
    exec("")
    sys.exit(code)


def _continuation_line() -> str:
    return f"\n  continue with: {_Continuation.command}" if _Continuation.command else ""


def _is_disk_full(error: BaseException) -> bool:
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
