"""Command that writes copy about items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taiji.cli import console
from taiji.cli.options import ConfigPath, JsonPath, Name, Overrides, Preset, Quiet, Runs
from taiji.cli.view_commands import config_of, name_of


def copy(
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN|ITEMS", help="A run directory, or a table of items (Parquet, CSV, JSON lines)."),
    ],
    comments: Annotated[
        Path | None, typer.Option("--comments", help="A table of comments: item_id, text, time, and user_id if known.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="Results of sends (item_id, copy, category, stratum, sends, clicks, satisfied): they train the reward model that chooses.",
        ),
    ] = None,
    reward: Annotated[
        Path | None, typer.Option("--reward", help="Folder of a reward model that an earlier call trained.")
    ] = None,
    reviewed: Annotated[
        bool,
        typer.Option(
            "--reviewed",
            help="What people chose in `taiji review RUN --copies` trains the reward model, beside --results if given.",
        ),
    ] = False,
    config: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Write short copy about items, check it against their evidence, and choose by a reward model.

    What was written is kept: a call that was stopped goes on where it was, and other checks or another reward model ask for nothing again.
    """
    from taiji.config import load_config
    from taiji.core import progress
    from taiji.core.artifacts import make_folder, write_json
    from taiji.core.errors import ConfigError, InputError
    from taiji.core.manifests import MANIFEST
    from taiji.pipeline.run_copy import STAGE, make_copies, print_copies, run_catalogue, table_catalogue

    progress.silence(quiet)
    if reward is not None and (results is not None or reviewed):
        raise ConfigError(
            "Two reward models are asked for.",
            where="--reward and --results or --reviewed",
            expected="one of them",
            found="both",
        )
    if (target / "config.json").is_file():
        if config or preset or name:
            raise ConfigError(
                "A run keeps its configuration and its name.", where=str(target), expected="--set for single settings",
                found="--config, --preset or --name",
            )  # fmt: skip
        settings, folder = config_of(target, overrides), target
        catalogue = run_catalogue(target, settings.data.domain)
    else:
        settings = load_config(config, preset=preset, overrides=overrides or [])
        if not target.exists():
            raise InputError(
                "There is neither a run nor a table of items.", where=str(target), found="nothing",
                expected="runs/NAME, or a Parquet, CSV, Excel or JSON-lines file with the columns item_id and title", fix="check the path",
            )  # fmt: skip
        catalogue = table_catalogue(target, settings.data.domain or "shop")
        folder = runs / name_of(config, preset, name or target.stem)
        if others := [path.parent.name for path in folder.glob(f"*/{MANIFEST}") if path.parent.name != STAGE]:
            raise ConfigError(
                "Another run has that name.", where=str(folder), expected="a name of its own for copy about a table of items",
                found=f"a run with the stages {', '.join(sorted(others))}", fix="choose another --name, or give the run itself",
            )  # fmt: skip
        make_folder(folder)
        write_json(folder / "config.json", settings.model_dump(mode="json"))
    found = make_copies(folder, catalogue, settings, comments, results, reward, reviewed)
    if not (json_path and console.emit_json(json_path, found)):
        print_copies(found)
