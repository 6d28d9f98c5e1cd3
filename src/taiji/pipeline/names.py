"""Names of models, feature tables and runs, without heavy imports."""

from __future__ import annotations

from pathlib import Path

from taiji.core.errors import ConfigError

MODELS = ("base", "sft", "aligned")
"""Models that answer the test prompts: before fine-tuning, after it, after alignment."""
ARMS = ("history_mean", "taiji")
"""Feature tables with which rankers are trained, in addition to none."""


def model_stage(which: str) -> str | None:
    """Return the stage that produces a model: None for ``base``; for a weighting rule, the alignment with this rule."""
    return {"base": None, "sft": "sft", "aligned": "alignment"}.get(which, f"alignment-{which}")


def run_name(name: str) -> str:
    """Validate the name of a run, which is used for a folder and for the files of `taiji init`.

    Raises:
        ConfigError: the name is empty, is a path, or contains unprintable characters.
    """
    if not name or name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise ConfigError(
            "The name is not a valid name of a run.",
            where=f"--name {name!r}",
            expected="the name of a folder, without a path",
            fix="give the path separately: --runs FOLDER for `taiji run`, --to FOLDER for `taiji init`",
        )
    return name
