"""Command line of the pipeline. The commands parse options, call the library, and print results; a user's error becomes
one message and exit code 2.

Heavy modules are imported inside the commands, so that ``taiji --help`` starts quickly.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from taiji import __version__
from taiji.cli import (
    console,
    copy_commands,
    experiment_commands,
    key_commands,
    recommend_commands,
    run_commands,
    serve_commands,
    start_commands,
    world_commands,
)
from taiji.cli.command_groups import TaskGroup
from taiji.core import progress
from taiji.pipeline.recipes import STAGE_NAMES

app = typer.Typer(
    name="taiji",
    help="Enhance your recommender with an LLM: rationales, alignment, features, and measurements of their value.",
    epilog="Start with `taiji run --preset demo`, or with your own files: `taiji init FOLDER`. `taiji COMMAND --help` explains a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=TaskGroup,
)
TASKS: dict[str, tuple[Callable[..., None] | tuple[str, typer.Typer], ...]] = {
    "Try, before anything is trained": (experiment_commands.oracle, ("world", world_commands.app), experiment_commands.abtest),
    "Prepare": (start_commands.init, start_commands.config, start_commands.doctor, run_commands.plan),
    "Train": (run_commands.run, recommend_commands.recommend, copy_commands.copy, run_commands.stage),
    "Evaluate": (experiment_commands.study, experiment_commands.audit, experiment_commands.review),
    "Inspect": (experiment_commands.view,),
    "Run the service": (
        serve_commands.serve, serve_commands.roll_out, serve_commands.roll_back, ("keys", key_commands.app), serve_commands.load, serve_commands.repair_clock,
    ),
}  # fmt: skip
"""Commands under each heading of `taiji --help`. A group of commands is a pair of its name and its Typer app."""
for task, commands in TASKS.items():
    for command in commands:
        if isinstance(command, tuple):
            app.add_typer(command[1], name=command[0], rich_help_panel=task)
        else:
            app.command(rich_help_panel=task)(command)
for name, summary in STAGE_NAMES.items():
    if name != "audit":  # a separate command, which prints its result
        app.command(
            name,
            help=f"{summary} The inputs of the stage must exist.",
            short_help=summary,
            rich_help_panel="Run one stage of `taiji run`; the inputs of the stage must exist",
        )(run_commands.stage_command(name))
RENAMED_COMMANDS = {"ceiling": "oracle", "environment": "reward_table", "judge": "evaluation_ranker"}
"""New names of renamed commands, by old name. The old names work for one more version."""
for old, new in RENAMED_COMMANDS.items():
    renamed = experiment_commands.oracle if new == "oracle" else run_commands.stage_command(new)
    app.command(old, hidden=True)(run_commands.renamed_command(renamed, old, new))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the ``taiji`` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # otherwise TRL's trainers send telemetry at each start
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # warnings of libraries are meant for developers; python -W shows them
    progress.silence(False)
    console.guarded(lambda: app(prog_name="taiji"))
