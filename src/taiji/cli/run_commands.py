"""Commands that run all stages or one stage, and that estimate the cost of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from taiji.cli import console
from taiji.cli.options import (
    Address,
    ConfigPath,
    Data,
    Engine,
    Force,
    JsonPath,
    Name,
    Overrides,
    Preset,
    Quiet,
    Resume,
    Runs,
    Verify,
)
from taiji.cli.view_commands import name_of, open_run, say, summary
from taiji.core.advice import runs_in, runs_option
from taiji.core.errors import TaijiError


def run(
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    json_path: JsonPath = None,
    quiet: Quiet = False,
    engine: Engine = "local",
    address: Address = None,
    force: Force = None,
    verify: Verify = False,
) -> None:
    """Run all stages, from logs to an evaluated ranker and a report."""
    from taiji.core.manifests import has_finished_stage
    from taiji.language.processes import first_process
    from taiji.scale.forecast import forecast

    called, resume = name_of(config, preset, name), resume or bool(force)
    if resume and not os.path.exists(runs / called / "config.json"):
        if not (config or preset or data or overrides) and has_finished_stage(runs / called):
            raise TaijiError(
                "The saved configuration of a run is missing.",
                where=str(runs / called / "config.json"),
                fix="start the run again with its original configuration or preset and --resume; finished stages are kept",
            )
        if not (config or preset or data or overrides):
            raise TaijiError(
                "There is no run to continue.",
                where=str(runs / called),
                found=runs_in(runs),
                fix="name one of these with --name, or start a new run without --resume",
            )
        if not quiet:  # scripts may always use --resume, but a person may have mistyped the name
            say(f"There is no run {called} to resume, so a new one starts; {runs_in(runs)}.")
    opened = open_run(config, preset, data, overrides, name, runs, resume, quiet, engine, address, verify)
    if force:
        opened.force(force)
    if not quiet and first_process():
        opened.say(forecast(opened).sentence())
    opened.execute()
    summary(opened.folder, json_path)


def stage(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Name of a stage of taiji or of another package.")],
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Run one stage, possibly one that the configuration adds under `stages`. Its inputs must exist."""
    opened = open_run(config, preset, data, overrides, name, runs, True, quiet, engine, address)
    console.can_go_on(f"taiji stage {stage} --name {quote(opened.folder.name)}{runs_option(runs)}")
    opened.execute([stage])


def stage_command(stage: str) -> Callable[..., None]:
    """Return a command that runs one stage."""

    def command(
        config: ConfigPath = None,
        preset: Preset = None,
        data: Data = None,
        overrides: Overrides = None,
        name: Name = None,
        runs: Runs = Path("runs"),
        quiet: Quiet = False,
        engine: Engine = "local",
        address: Address = None,
    ) -> None:
        opened = open_run(config, preset, data, overrides, name, runs, True, quiet, engine, address)
        console.can_go_on(f"taiji {stage} --name {quote(opened.folder.name)}{runs_option(runs)}")
        opened.execute([stage])

    return command


def renamed_command(command: Callable[..., None], old: str, new: str) -> Callable[..., None]:
    """Return a command for an old name, which prints the new name and then runs ``command``."""

    @wraps(command)
    def hinting(*arguments: object, **options: object) -> None:
        say(f"`taiji {old}` is now called `taiji {new}`; the old name is removed in the next version.")
        command(*arguments, **options)

    return hinting


def plan(
    config: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    users: Annotated[float, typer.Option("--users", min=1, help="Number of users in the log.")] = 1e6,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            "--measured",
            metavar="RUN",
            help="Finished run whose measured speed is used. May be repeated; two runs of different sizes are better.",
        ),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            "--cluster",
            metavar="FILE",
            help="YAML file of machines, GPUs and token rates (default: one machine like the measured one).",
        ),
    ] = None,
    json_path: JsonPath = None,
) -> None:
    """Estimate the cost of a run: tokens, GPU hours, storage and wall time of every stage, with the assumptions."""
    from taiji.config import load_config
    from taiji.scale.cluster import load_cluster, print_plan
    from taiji.scale.plan import plan as calculate
    from taiji.scale.rates import measured as read

    settings = load_config(config, preset=preset, overrides=overrides or [])
    if not measured:
        raise TaijiError(
            "Measured rates are missing.",
            where="taiji plan",
            expected="--measured RUN with a finished run",
            fix="finish a run with taiji run --preset demo, then add --measured runs/demo",
        )
    found = calculate(
        settings, users, [read(folder) for folder in measured], load_cluster(cluster), read(measured[-1], settings).log
    )
    if not (json_path and console.emit_json(json_path, found.as_json())):
        print_plan(found)
