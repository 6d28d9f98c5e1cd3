"""Arguments and options shared by several commands."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


def complete_presets(incomplete: str) -> list[str]:
    """Return the presets whose names start with ``incomplete``."""
    from taiji.config import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """Return the keys of the configuration that start with ``incomplete``, each with an equals sign."""
    from taiji.config import setting_keys

    return [f"{key}=" for key in setting_keys() if key.startswith(incomplete)]


ConfigPath = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="YAML configuration; see `taiji config`.")]
Preset = Annotated[
    str | None,
    typer.Option("--preset", help="Settings to start from: demo, laptop or paper.", autocompletion=complete_presets),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|PATH", help="Named source, folder with a known layout, or mapping file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.", autocompletion=complete_settings
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the run (default: that of the configuration or preset).")
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an existing run: finished, unchanged stages are skipped.")
]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        help="Repeat a stage, and the stages that depend on it, even if nothing changed; implies --resume. May be repeated.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Compare every artefact, including large ones, with its hash before a stage reads it or is skipped.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, runs/NAME.")]
JsonPath = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help='Write the result to a JSON file; the file name "-" prints the JSON instead of the text.',
    ),
]
Verdict = Enum("Verdict", {name: name for name in ("keep", "reject", "review")})  # type: ignore[misc]
Engine = Annotated[
    str, typer.Option("--engine", help="Where to compute partitions: local (this process) or ray (a cluster).")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Ray cluster to join (`auto` or HOST:PORT); by default one is started on this machine."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and the result.")]
