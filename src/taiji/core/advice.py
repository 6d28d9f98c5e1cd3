"""Commands that messages recommend. This module has no heavy imports."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from taiji.core.errors import ArtifactError


def remake(run: Path) -> str:
    """Return the advice to recompute the missing or damaged parts of a run, with the command."""
    return f"recompute damaged and missing parts with {resume_command(run)}"


def resume_command(run: Path) -> str:
    """Return the command that resumes a run."""
    return f"taiji {_recipe(run)} {run_options(run)} --resume"


def run_options(run: Path) -> str:
    """Return the options ``--name`` and ``--runs`` that select a run."""
    run = run if run.name not in ("", "..") else run.resolve()
    return f"--name {quote(run.name)}{runs_option(run.parent)}"


def runs_option(runs: Path) -> str:
    """Return the option ``--runs`` with a leading space, or an empty string for the default folder."""
    return "" if runs == Path("runs") else f" --runs {quote(str(runs))}"


def _recipe(run: Path) -> str:
    """Return the subcommand that made a run, ``run`` or ``recommend``."""
    return "recommend" if any(run.glob("retriever-*")) and not (run / "examples").exists() else "run"


def runs_in(folder: Path) -> str:
    """List the runs in a folder, for messages about a missing run."""
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"runs in {folder}: {', '.join(names)}" if names else f"no run in {folder}"


def check_run(run: Path) -> None:
    """Raise an error if a folder is not a run directory.

    Raises:
        ArtifactError: the folder is not a run directory.
    """
    if not (run / "config.json").is_file():
        raise ArtifactError(
            "The folder is not a run directory.",
            where=str(run),
            expected="a folder with config.json that `taiji run` or `taiji recommend` has made",
            found=runs_in(run if run.is_dir() else run.parent),
            fix="name the directory of a run, such as runs/NAME",
        )
