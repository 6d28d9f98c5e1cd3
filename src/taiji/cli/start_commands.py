"""Commands for getting started: inspect your own files, print the configuration, check the installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taiji.cli import console
from taiji.cli.options import ConfigPath, JsonPath, Overrides, Preset, Quiet
from taiji.core.errors import TaijiError

if TYPE_CHECKING:
    from taiji.data.discovery.parts import Question


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of Parquet, CSV, Excel or JSON-lines files with any column names; a table may also be a folder of part files.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of the mapping, for example events.user_id=CUSTOMER; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the dataset and the run (default: the folder's name).")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for the configuration and the mapping.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier call.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="PATTERN", help="Skip files and folders whose names match; may be repeated."),
    ] = None,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Inspect a folder of your files, propose and show a mapping, and write a runnable configuration."""
    from taiji.pipeline.initial_summary import as_json, initialised_text
    from taiji.pipeline.initialise import initialise

    answers = dict(_pair(text) for text in overrides or [])
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    made = initialise(
        folder,
        to,
        name or folder.resolve().name,
        answers,
        choose if terminal else None,
        force=force,
        ignore=ignore or [],
    )
    if json_path and console.emit_json(json_path, as_json(made)):
        return
    if quiet:
        print(made.command)
    else:
        print(initialised_text(made))


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise TaijiError(
            "An option does not have the form key=value.",
            where=f"--set {text}",
            fix="write, for instance, --set events.user_id=COLUMN",
        )
    return key.strip(), value.strip()


def choose(question: Question) -> str:
    """Ask a question on the terminal and return the answer."""
    print(f"\nPlease specify {question.what} ({question.key}):")
    for number, choice in enumerate(question.choices, start=1):
        print(f"  {number}  {choice.value}  ({'; '.join(choice.reasons)})")
    given = typer.prompt("number, or another value").strip()
    return (
        str(question.choices[int(given) - 1].value)
        if given.isdigit() and 1 <= int(given) <= len(question.choices)
        else given
    )


def config(
    path: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    describe: Annotated[
        bool,
        typer.Option(
            "--describe",
            help="Explain every key as Markdown instead, including those of the stages and models in CONFIG.",
        ),
    ] = False,
) -> None:
    """Print the resolved configuration as YAML, ready for editing."""
    from taiji.config import load_config

    settings = load_config(path, preset=preset, overrides=overrides or [])
    if describe:
        from taiji.cli.settings_page import reference

        print(reference(type(settings)), end="")
        return
    import yaml

    print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def doctor(
    path: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    json_path: JsonPath = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only problems.")] = False,
) -> None:
    """Check the installation: print installed packages and models, and the commands that install missing ones.

    With a configuration, also check the prompts of its language model.
    """
    from dataclasses import asdict

    from taiji.cli.doctor import examine

    language = None
    if path or preset or overrides:
        from taiji.config import load_config

        language = load_config(path, preset=preset, overrides=overrides or []).language
    findings = examine(language)
    if not (json_path and console.emit_json(json_path, [asdict(finding) for finding in findings])):
        for finding in findings:
            if finding.blocking or finding.warning or not quiet:
                print(finding)
    if any(finding.blocking for finding in findings):
        raise typer.Exit(1)
