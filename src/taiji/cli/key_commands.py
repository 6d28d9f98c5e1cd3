"""Commands for the file of API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="API keys of the service: make, list, take away; a running service follows within seconds.",
    no_args_is_help=True,
)
KeyFile = Annotated[Path, typer.Argument(help="File of keys, as serving.keys names it.")]
Name = Annotated[str, typer.Argument(help="Name of the key, which logs and rates show.")]


@app.command()
def add(
    file: KeyFile,
    name: Name,
    scope: Annotated[list[str], typer.Option(help="read, write or admin; may be repeated.")],
    expires: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD (UTC).")] = "",
) -> None:
    """Make a key and print its secret, which is shown this once."""
    from taiji.serving.keys import new_key

    print(new_key(file, name, scope, expires=expires))


@app.command("list")
def list_keys(file: KeyFile) -> None:
    """Print names, scopes and last days."""
    from taiji.serving.keys import load_keys

    for key in load_keys(file, {}):
        print(key.name, "+".join(sorted(key.scopes)), (key.expires or "no end") + " (over)" * key.expired, sep="\t")


@app.command()
def remove(file: KeyFile, name: Name) -> None:
    """Take a key away."""
    from taiji.serving.keys import remove_key

    remove_key(file, name)
