"""The log is logging's: silent when imported, JSON lines in the service's own programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from taiji.serving.logs import JsonLines, libraries_to_standard_error, log, logger, to_standard_error


def test_lines_hold_the_event_and_its_facts_and_say_when(capsys):
    to_standard_error()
    to_standard_error()
    assert sum(isinstance(handler, JsonLines) for handler in logger.handlers) == 1
    log("worker started", worker="w", release="r1")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time") > 1.7e9
    assert line == {"event": "worker started", "worker": "w", "release": "r1"}


def test_what_names_an_error_is_a_warning():
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    log("store unavailable", error="OSError")
    log("user erased", neighbours=3)
    assert [(record.levelname, record.getMessage(), record.facts) for record in seen] == [
        ("WARNING", "store unavailable", {"error": "OSError"}),
        ("INFO", "user erased", {"neighbours": 3}),
    ]


def test_a_program_that_imports_the_service_hears_only_what_it_asks_for():
    code = "from taiji.serving.logs import log; log('user erased', neighbours=3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_what_a_library_says_is_json_without_its_text(capsys):
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        libraries_to_standard_error()
        libraries_to_standard_error()
        try:
            raise ValueError("about user-7")
        except ValueError:
            logging.getLogger("some.library").exception("could not serve user-7")
        (line,) = capsys.readouterr().err.splitlines()
        facts = json.loads(line)
        assert (
            facts["event"] == "library"
            and facts["logger"] == "some.library"
            and facts["error"].startswith("ValueError at")
        )
        assert "user-7" not in line
    finally:
        root.handlers = before
