"""Commands that manage the file of API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Add, list and remove API keys of the service. A running service applies changes within seconds.",
    no_args_is_help=True,
)
KeyFile = Annotated[Path, typer.Argument(help="File of keys, as set in serving.keys.")]
Name = Annotated[str, typer.Argument(help="Name of the key in logs and rate limits.")]


@app.command()
def add(
    file: KeyFile,
    name: Name,
    scope: Annotated[list[str], typer.Option(help="read, write or admin; may be repeated.")],
    expires: Annotated[str, typer.Option(help="Last valid day, YYYY-MM-DD (UTC).")] = "",
) -> None:
    """Add a key and print its secret, which is shown only once."""
    from taiji.serving.keys import new_key

    print(new_key(file, name, scope, expires=expires))


@app.command("list")
def list_keys(file: KeyFile) -> None:
    """List API keys with their scopes and expiry dates."""
    from taiji.serving.keys import load_keys

    for key in load_keys(file, {}):
        print(
            key.name, "+".join(sorted(key.scopes)), (key.expires or "no expiry") + " (expired)" * key.expired, sep="\t"
        )


@app.command()
def remove(file: KeyFile, name: Name) -> None:
    """Remove a key."""
    from taiji.serving.keys import remove_key

    remove_key(file, name)
