"""Commands that messages advise. Free of heavy imports."""

from __future__ import annotations

from pathlib import Path
from shlex import quote


def remake(run: Path) -> str:
    """Return the command that rebuilds the missing or damaged parts of a run."""
    return f"{resume_command(run)} makes again what is damaged or missing"


def resume_command(run: Path) -> str:
    """Return the command that resumes a run."""
    return f"taiji {_recipe(run)} {run_options(run)} --resume"


def run_options(run: Path) -> str:
    """Return the options that name a run."""
    run = run if run.name not in ("", "..") else run.resolve()
    return f"--name {quote(run.name)}{runs_option(run.parent)}"


def runs_option(runs: Path) -> str:
    """Return the option that names the folder of the runs, where it is not the default."""
    return "" if runs == Path("runs") else f" --runs {quote(str(runs))}"


def _recipe(run: Path) -> str:
    """Return the command whose recipe made a run."""
    return "recommend" if any(run.glob("retriever-*")) and not (run / "examples").exists() else "run"
