"""Names of models, feature tables and runs, without heavy imports."""

from __future__ import annotations

from pathlib import Path

from taiji.core.errors import ConfigError

MODELS = ("base", "sft", "aligned")
"""Models that answer the test prompts: before fine-tuning, after it, after alignment."""
ARMS = ("history_mean", "taiji")
"""Feature tables with which rankers are trained, in addition to none."""


def model_stage(which: str) -> str | None:
    """Return the stage that makes a model: none for ``base``, for a weighting rule the alignment with that rule."""
    return {"base": None, "sft": "sft", "aligned": "alignment"}.get(which, f"alignment-{which}")


def run_name(name: str) -> str:
    """Return a valid run name; it is used for a folder, and for the files of `taiji init`.

    Raises:
        ConfigError: the name is a path, empty, or contains unprintable characters.
    """
    if not name or name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise ConfigError(
            "This is not a valid name of a run.",
            where=f"--name {name!r}",
            expected="a name for a folder, without a path",
            fix="give the path separately: `taiji run` takes --runs FOLDER, `taiji init` --to FOLDER",
        )
    return name
