"""Names of stages, models and feature tables, free of heavy imports; and what a run may be called."""

from __future__ import annotations

from pathlib import Path

from taiji.core.errors import TaijiError

STAGE_NAMES = {
    "data": "Read the source, check it, and store the tables.",
    "examples": "Split by time and choose the prompts.",
    "reward": "Train the ranker that rewards alignment, on the earliest period.",
    "rationales": "Let the teacher, shown the true next item, write rationales (RUPR).",
    "selection": "Keep the rationales that make the true item likely (ORFT).",
    "audit": "Audit the rationales for leaked answers: guards, decoys, controls, worst examples.",
    "sft": "Fine-tune the language model on the kept rationales.",
    "environment": "Precompute candidate items and their rewards for every alignment prompt.",
    "alignment": "Align the model to both rewards by GRPO with adaptive weights (POPO).",
    "judge": "Train the ranker without features, which also judges the models.",
    "answers": "Let the base, fine-tuned and aligned models answer the test prompts.",
    "features": "Turn what the aligned model writes into point-in-time features.",
    "ranking": "Train the rankers with features and score the test exposures.",
    "report": "Measure everything with intervals and floors, and write the report.",
}

MODELS = ("base", "sft", "aligned")
"""Who answers the test prompts: the model before fine-tuning, after it, after alignment."""
ARMS = ("history_mean", "taiji")
"""Feature tables that a ranker is trained with, besides none."""


def run_name(name: str) -> str:
    """The name, if a run can have it: it becomes a folder's, and those of the files that `taiji init` writes.

    Raises:
        TaijiError: a path, nothing, or signs that cannot be printed.
    """
    if not name or name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise TaijiError(
            "That cannot be a run's name.",
            where=f"--name {name!r}",
            expected="a name for a folder, without a path",
            fix="give the path apart from it: `taiji run` takes --runs FOLDER, `taiji init` --to FOLDER",
        )
    return name
