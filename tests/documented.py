"""The `taiji` of shell blocks in the documentation: the real command on tiny sizes.

`taiji run` stops after the stages `data` and `examples`, unless TAIJI_DOCUMENTED=whole. The model is
TAIJI_DOCUMENTED_MODEL.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.tiny import configuration

from taiji import cli
from taiji.cli import console
from taiji.pipeline.recipes import STAGE_NAMES


def main() -> None:
    """Run the arguments as `taiji` would, with tiny sizes appended where a configuration is read."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("run", "oracle", "stage", *STAGE_NAMES):
        tiny = configuration(Path("unused"), Path(os.environ["TAIJI_DOCUMENTED_MODEL"]))
        teacher = tiny["reasoning"]["teacher"]
        tiny["reasoning"]["teacher"] = {name: value for name, value in teacher.items() if name != "kind"}
        sys.argv += [
            text
            for section, values in tiny.items()
            if section != "data"
            for text in ("--set", f"{section}={json.dumps(values)}")
        ]
    if command == "oracle":
        sys.argv += ["--seeds", "1"]
    if command == "run" and os.environ.get("TAIJI_DOCUMENTED") != "whole":
        from taiji.pipeline.engine import Run

        execute = Run.execute
        Run.execute = lambda self, names=None: execute(self, names or ["data", "examples"])  # type: ignore[method-assign]
        cli.run_commands.summary = lambda folder, json_path: (
            json_path and console.emit_json(json_path, {"run": str(folder)})
        )  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
