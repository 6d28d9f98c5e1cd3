"""Steps shared by commands: open a run, load its configuration, and print its results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from taiji.cli import console
from taiji.core.advice import check_run, runs_option
from taiji.core.errors import TaijiError
from taiji.pipeline.names import run_name

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Run
    from taiji.pipeline.partitions import Mapper


def name_of(config: Path | None, preset: str | None, name: str | None) -> str:
    """Return the name of a run: the given name, or the name of its configuration or preset.

    Raises:
        TaijiError: the name is not valid for a run.
    """
    if name is not None:
        return run_name(name, "--name")
    return run_name(config.stem, f"the name of {config}") if config else run_name(preset or "run", "--preset")


def open_run(
    config: Path | None,
    preset: str | None,
    data: str | None,
    overrides: list[str] | None,
    name: str | None,
    runs: Path,
    resume: bool,
    quiet: bool,
    engine: str = "local",
    address: str | None = None,
    verify: bool = False,
    recommend: bool = False,
) -> Run:
    """Open the run that a command's options describe, with the stages of `taiji run` or, with ``recommend``, of
    `taiji recommend`.

    Raises:
        TaijiError: the options are invalid, or a stage of this run has finished and ``resume`` is false.
    """
    from taiji.core import progress
    from taiji.core.manifests import Verifier, has_finished_stage

    progress.silence(quiet)
    name = name_of(config, preset, name)
    folder = runs / name
    stored = folder / "config.json"
    console.can_go_on(f"taiji {'recommend' if recommend else 'run'} --name {quote(name)}{runs_option(runs)} --resume")
    exists = os.path.exists(stored)  # an unreadable folder is reported when the run is written
    if resume and exists and config is None and preset is None:
        config = stored  # the original options need not be repeated to resume a run
    # A run that failed before its first stage finished has nothing to lose, and its name may be reused.
    if not resume and exists and has_finished_stage(folder):
        raise TaijiError(
            "A run with this name exists.",
            where=str(folder),
            fix="add --resume to continue it (finished stages are kept), or choose another --name",
        )
    from taiji.config import load_config  # the imports of the stages take seconds, so a taken name is rejected first
    from taiji.language.causal_lm import check_language_model
    from taiji.pipeline.engine import Run
    from taiji.pipeline.recipes import stages_of
    from taiji.pipeline.recommend_recipe import recommend_stages

    settings = load_config(config, preset=preset, data=data, overrides=overrides or [])
    stages = recommend_stages(settings) if recommend else stages_of(settings)
    if not recommend:
        check_language_model(settings.language.model)  # fail now rather than after an hour
    return Run(
        folder,
        settings,
        stages,
        say=(lambda text: None) if quiet else say,
        mapper=_mapper(engine, address, settings),
        verifier=Verifier(verify),
    )


def _mapper(engine: str, address: str | None, settings: Config) -> Mapper:
    if engine not in ("local", "ray"):
        raise TaijiError("The engine is unknown.", where="--engine", expected="local or ray", found=engine)
    if address and engine != "ray":
        raise TaijiError(
            "An address of a cluster is given, but the engine of this command does not use one.",
            where=f"--address {address}",
            found=f"the engine {engine}",
            fix="add --engine ray, or leave --address out",
        )
    if engine == "ray":
        from taiji.scale.ray_mapper import connect

        return connect(address, settings.scale)
    from taiji.pipeline.partitions import LocalMapper

    return LocalMapper()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def summary(folder: Path, json_path: Path | None) -> None:
    from taiji.core.artifacts import read_json
    from taiji.reporting.terminal_summary import print_summary

    metrics = read_json(folder / "metrics.json")
    if json_path and console.emit_json(
        json_path, {"run": str(folder), "report": str(folder / "report.html"), "metrics": metrics}
    ):
        return
    print_summary(metrics)
    print(f"\nreport: {folder / 'report.html'}\nmetrics: {folder / 'metrics.json'}")


def config_of(run: Path, overrides: list[str] | None = None) -> Config:
    from taiji.config import load_config

    check_run(run)
    return load_config(run / "config.json", overrides=overrides or [])
