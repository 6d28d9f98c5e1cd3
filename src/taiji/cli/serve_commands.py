"""Commands of the near-online service."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from taiji.cli import console
from taiji.cli.options import JsonPath, Overrides, RunFolder
from taiji.cli.view_commands import config_of


def serve(run: RunFolder, overrides: Overrides = None) -> None:
    """Serve a finished run near-online: event intake, features, ranking, recommendations, and HTTP API."""
    from taiji.serving import serve as start
    from taiji.serving.logs import to_standard_error

    to_standard_error()
    start(run, config_of(run, overrides).serving, started=partial(print, flush=True))


def roll_out(
    run: RunFolder,
    beside: Annotated[Path | None, typer.Option(help="Run with which the service was started.")] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Load models and write features, but keep serving the old release.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Prepare another finished run in a running service, and then serve it. The old release is kept."""
    from taiji.serving import roll_out as start

    found = start(run, config_of(run, overrides).serving, beside=beside, activate=not prepare)
    print(f"{'prepared' if prepare else 'serving'} {found.name}")


def roll_back(run: RunFolder, overrides: Overrides = None) -> None:
    """Serve the previous release again, immediately."""
    from taiji.serving import roll_back as start

    print(f"serving {start(config_of(run, overrides).serving, run)}")


def repair_clock(run: RunFolder, overrides: Overrides = None) -> None:
    """Repair the data that a service wrote while its clock was far ahead. No service may be running."""
    from taiji.serving import repair_clock as start

    print(f"{start(config_of(run, overrides).serving, run)} users will be updated")


def load(
    run: RunFolder,
    url: Annotated[str, typer.Option(help="Address of the service on this machine.")] = "http://127.0.0.1:8080",
    kind: Annotated[
        str, typer.Option(help="Kind of requests: read, batch, write, rank, recommend or health.")
    ] = "read",
    seconds: Annotated[float, typer.Option(help="Duration in seconds.")] = 10.0,
    connections: Annotated[int, typer.Option(help="Number of open connections.")] = 16,
    candidates: Annotated[int, typer.Option(help="Number of items in a ranking.")] = 50,
    overrides: Overrides = None,
    json_path: JsonPath = None,
) -> None:
    """Send requests to a running service, and report rates and latencies."""
    from dataclasses import asdict

    from taiji.serving import load as start
    from taiji.serving.traffic import of_run

    settings = config_of(run, overrides).serving
    users, items = of_run(run, settings)
    key = os.environ.get("TAIJI_API_KEY")
    found = start(
        url,
        users,
        items,
        kind=kind,  # type: ignore[arg-type]
        seconds=seconds,
        connections=connections,
        key=key,
        candidates=candidates,
    )
    if not (json_path and console.emit_json(json_path, asdict(found))):
        print(found)
