"""Names of models and feature tables, free of heavy imports; and what a run may be called."""

from __future__ import annotations

from pathlib import Path

from taiji.core.errors import ConfigError

MODELS = ("base", "sft", "aligned")
"""Writers of answers to the test prompts: the model before fine-tuning, after it, after alignment."""
ARMS = ("history_mean", "taiji")
"""Feature tables that a ranker is trained with, besides none."""


def model_stage(which: str) -> str | None:
    """Return the stage that makes a model: of ``base`` none, of a weighting rule the alignment with that rule."""
    return {"base": None, "sft": "sft", "aligned": "alignment"}.get(which, f"alignment-{which}")


def run_name(name: str) -> str:
    """Return the name, if a run can have it: it becomes a folder's, and those of the files that `taiji init` writes.

    Raises:
        ConfigError: a path, nothing, or signs that cannot be printed.
    """
    if not name or name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise ConfigError(
            "That cannot be a run's name.",
            where=f"--name {name!r}",
            expected="a name for a folder, without a path",
            fix="give the path apart from it: `taiji run` takes --runs FOLDER, `taiji init` --to FOLDER",
        )
    return name
