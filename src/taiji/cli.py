"""Thin commands over the pipeline: they parse, call, print, and turn a user's error into one message and exit code 2.

Heavy modules are imported inside the commands, so that ``taiji --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taiji import __version__
from taiji.errors import TaijiError

if TYPE_CHECKING:
    from taiji.pipeline.engine import Run

app = typer.Typer(
    name="taiji",
    help="An LLM as enhancer for your recommender: rationales, alignment, features, and proof of what they are worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML configuration; see `taiji config`.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings to start from: demo, laptop or paper.")]
Data = Annotated[str | None, typer.Option("--data", metavar="NAME|PATH", help="A named source, a folder in a known layout, or a mapping file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run (default: the configuration's or preset's).")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an existing run: finished, unchanged stages are skipped.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the result only.")]


def _open(
    config: Path | None, preset: str | None, data: str | None, overrides: list[str] | None, name: str | None, runs: Path, resume: bool, quiet: bool
) -> Run:
    from taiji import progress
    from taiji.config import load_config
    from taiji.language.models import check_language_model
    from taiji.pipeline.engine import Run
    from taiji.pipeline.stages import STAGES

    progress.quiet = quiet
    folder = runs / (name or (config.stem if config else preset or "run"))
    stored = folder / "config.json"
    if resume and stored.exists() and config is None and preset is None:
        config = stored  # "go on with what I started" needs no repetition of how it was started
    settings = load_config(config, preset=preset, overrides=[*([f"data.source={data}"] if data else []), *(overrides or [])])
    if stored.exists() and not resume:
        raise TaijiError(
            "A run of that name exists.", where=str(folder), fix="add --resume to go on with it (finished stages are kept), or choose another --name"
        )
    check_language_model(settings.language.model)  # now, not after the first hour
    return Run(folder, settings, STAGES, say=(lambda text: None) if quiet else _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@app.command()
def run(
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole loop, from logs to a judged ranker and a report."""
    opened = _open(config, preset, data, overrides, name, runs, resume, quiet)
    opened.execute()
    _summary(opened.folder)


def _summary(folder: Path) -> None:
    from taiji.artifacts import read_json
    from taiji.evaluation.summary import print_summary

    print_summary(read_json(folder / "metrics.json"))
    print(f"\nreport: {folder / 'report.html'}\nfigures: {folder / 'metrics.json'}")


def _add_stage_command(stage_name: str, summary: str) -> None:
    def command(
        config: ConfigPath = None,
        preset: Preset = None,
        data: Data = None,
        overrides: Overrides = None,
        name: Name = None,
        runs: Runs = Path("runs"),
        quiet: Quiet = False,
    ) -> None:
        _open(config, preset, data, overrides, name, runs, True, quiet).execute([stage_name])

    app.command(stage_name, help=f"Stage: {summary} Its inputs must be there.", rich_help_panel="Stages")(command)


@app.command("config")
def show_config(config: ConfigPath = None, preset: Preset = None, overrides: Overrides = None) -> None:
    """Print the resolved configuration as YAML, ready to be edited."""
    import yaml

    from taiji.config import load_config

    print(yaml.safe_dump(load_config(config, preset=preset, overrides=overrides or []).model_dump(mode="json"), sort_keys=False, allow_unicode=True))


@app.command()
def doctor() -> None:
    """Say what is installed, which models are at hand, and the command that mends what is missing."""
    from taiji.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    if any(finding.blocking for finding in findings):
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _no_space(error: BaseException) -> bool:
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def main() -> None:
    """Entry point of the ``taiji`` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from taiji.pipeline.names import STAGE_NAMES

    for stage_name, summary in STAGE_NAMES.items():
        _add_stage_command(stage_name, summary)
    try:
        app()
    except TaijiError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not _no_space(error):
            raise
        print(f"Error: The disk is full: {error}\n  what to do: make room and start again with --resume; finished stages are whole", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
