"""Thin commands over the pipeline: they parse, call, print, and turn a user's error into one message and exit code 2.

Heavy modules are imported inside the commands, so that ``taiji --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from taiji import __version__, console
from taiji.cli import judging, loop, service, starting
from taiji.pipeline.names import STAGE_NAMES

app = typer.Typer(
    name="taiji",
    help="An LLM as enhancer for your recommender: rationales, alignment, features, and proof of what they are worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    loop.run, starting.init, starting.config, starting.doctor,
    judging.audit, judging.view, judging.review, judging.abtest, judging.ceiling, judging.study, loop.plan,
    service.serve, service.roll_out, service.roll_back, service.load,
):  # fmt: skip
    app.command()(command)
for stage, summary in STAGE_NAMES.items():
    if stage != "audit":  # a command of its own, which prints what it found
        app.command(stage, help=f"Stage: {summary} Its inputs must be there.", rich_help_panel="Stages")(
            loop.stage_command(stage)
        )


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the ``taiji`` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault(
        "HF_HUB_DISABLE_TELEMETRY", "1"
    )  # nobody asked for it: TRL's trainers would report each start
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' notes to their developers; python -W shows them
    console.guarded(lambda: app(prog_name="taiji"))
