"""Command that writes advertising copy for items."""

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
        typer.Argument(metavar="RUN|ITEMS", help="Run directory, or table of items (Parquet, CSV, Excel, JSON lines)."),
    ],
    comments: Annotated[
        Path | None, typer.Option("--comments", help="Table of comments: item_id, text, time, and optionally user_id.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="Table of results of sent texts: item_id, copy, category, stratum, sends, clicks, satisfied. The reward model that chooses among texts is trained on it.",
        ),
    ] = None,
    reward: Annotated[
        Path | None, typer.Option("--reward", help="Folder of a reward model that was trained earlier.")
    ] = None,
    reviewed: Annotated[
        bool,
        typer.Option(
            "--reviewed",
            help="Train the reward model on the choices in `taiji review RUN --copies`, in addition to --results if given.",
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
    """Write short marketing texts (copy) about items, check them against evidence, and choose the best with a reward
    model.

    Written texts are kept. An interrupted call therefore continues where it stopped. Changed checks or reward models
    require no new texts, unless a changed limit is part of the prompt.
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
            "Two reward models are given.",
            where="--reward and --results or --reviewed",
            expected="either --reward, or one or both of --results and --reviewed",
            found="both",
        )
    if (target / "config.json").is_file():
        given = {"CONFIG": config, "--preset": preset, "--name": name}
        if any(given.values()):
            raise ConfigError(
                "An existing run keeps its name and its configuration.", where=str(target),
                expected="only --set, which overrides single settings",
                found=" and ".join(option for option, value in given.items() if value), fix="remove these options",
            )  # fmt: skip
        settings, folder = config_of(target, overrides), target
        catalogue = run_catalogue(target, settings.data.domain)
    else:
        settings = load_config(config, preset=preset, overrides=overrides or [])
        if not target.exists():
            raise InputError(
                "The path is neither a run nor a table of items.", where=str(target), found="nothing",
                expected="runs/NAME, or a Parquet, CSV, Excel or JSON-lines file with a column item_id", fix="check the path",
            )  # fmt: skip
        catalogue = table_catalogue(target, settings.data.domain or "shop")
        folder = runs / name_of(target, None, name)
        if others := [path.parent.name for path in folder.glob(f"*/{MANIFEST}") if path.parent.name != STAGE]:
            raise ConfigError(
                "The name belongs to another run.", where=str(folder),
                expected="an unused name, because the copies for a table of items get their own run",
                found=f"a run with the stages {', '.join(sorted(others))}", fix="choose another --name, or name the run itself as the argument",
            )  # fmt: skip
        make_folder(folder)
        write_json(folder / "config.json", settings.model_dump(mode="json"))
    found = make_copies(folder, catalogue, settings, comments, results, reward, reviewed)
    if not (json_path and console.emit_json(json_path, found)):
        print_copies(found)
