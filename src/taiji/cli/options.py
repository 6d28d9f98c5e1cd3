"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


def complete_presets(incomplete: str) -> list[str]:
    """Presets that begin so."""
    from taiji.config import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """Keys of the configuration that begin so, each with its equals sign."""
    from taiji.config import setting_keys

    return [f"{key}=" for key in setting_keys() if key.startswith(incomplete)]


ConfigPath = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A YAML configuration; see `taiji config`.")]
Preset = Annotated[
    str | None,
    typer.Option("--preset", help="Settings to start from: demo, laptop or paper.", autocompletion=complete_presets),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|PATH", help="A named source, a folder in a known layout, or a mapping file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.", autocompletion=complete_settings
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run (default: the configuration's or preset's).")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an existing run: finished, unchanged stages are skipped.")
]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        help="Make a stage again, and what depends on it, though nothing changed; implies --resume. May be repeated.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Compare every artefact with its hash, large ones too, before it is used or skipped."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, runs/NAME.")]
JsonPath = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - prints it in place of the text."),
]
Verdict = Enum("Verdict", {name: name for name in ("keep", "reject", "review")})  # type: ignore[misc]
Engine = Annotated[
    str, typer.Option("--engine", help="Where partitions are computed: local (this process) or ray (a cluster).")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Ray: the cluster to join (`auto` or HOST:PORT); left out, one is started on this machine."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the result only.")]
