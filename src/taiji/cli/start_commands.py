"""Commands for the start: look at one's own files, see the configuration, check the installation."""

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
            help="Parquet, CSV, Excel or JSON-lines files, or folders of parts, with columns of any names.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Decide a part of the mapping: events.user_id=KUNDE; may be repeated."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of data set and run (default: the folder's).")] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for the configuration and the mapping.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Write over the files of an earlier call.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="PATTERN", help="Leave out files and folders of such names; may be repeated."),
    ] = None,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Look at a folder of your files, propose what is what, show it, and write a configuration that runs."""
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
            "A choice is not of the form key=value.",
            where=f"--set {text}",
            fix="write for instance --set events.user_id=COLUMN",
        )
    return key.strip(), value.strip()


def choose(question: Question) -> str:
    """Put a question to the person at the terminal."""
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
            help="Explain every key instead, as Markdown; also those of the stages and models that CONFIG names.",
        ),
    ] = False,
) -> None:
    """Print the resolved configuration as YAML, ready to be edited."""
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is missing or wrong.")] = False,
) -> None:
    """Say what is installed, which models are at hand, and the command that mends what is missing.

    With a configuration: also how the prompts of its language model begin and end.
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
