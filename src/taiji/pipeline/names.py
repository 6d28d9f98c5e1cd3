"""Names of models, feature tables and runs, without heavy imports."""

from __future__ import annotations

from pathlib import Path

from taiji.core.errors import ConfigError

MODELS = ("base", "sft", "aligned")
"""Models that answer the test prompts: before fine-tuning, after fine-tuning, and after alignment."""
ARMS = ("history_mean", "taiji")
"""Names of the feature tables. One ranker is trained with each table, and one without features."""


def model_stage(which: str) -> str | None:
    """Return the stage that produces a model: None for ``base``; for a weighting rule, the alignment with this rule."""
    return {"base": None, "sft": "sft", "aligned": "alignment"}.get(which, f"alignment-{which}")


def run_name(name: str, source: str) -> str:
    """Return the name of a run if it is a valid name for a folder and for the files of `taiji init`.

    Args:
        name: the name.
        source: where it comes from, for the error: an option, a file or a folder.

    Raises:
        ConfigError: the name is empty, is a path, or contains unprintable characters.
    """
    if not name or name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise ConfigError(
            "The name is not a valid name of a run.",
            where=source,
            expected="the name of a folder, without a path",
            found=repr(name),
            fix="choose a name with --name; give a path separately: --runs FOLDER for `taiji run`, --to FOLDER for `taiji init`",
        )
    return name
