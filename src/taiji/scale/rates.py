"""Measurements of a finished run: seconds, bytes and tokens, from its manifests and artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.config import STORED, Config, load_config
from taiji.core.advice import resume_command
from taiji.core.artifacts import read_json
from taiji.core.errors import ArtifactError
from taiji.core.manifests import MANIFEST, Verifier, read_manifest
from taiji.data import PERIODS, open_dataset
from taiji.pipeline.amounts import Log
from taiji.pipeline.recipes import stages_of
from taiji.scale.workload import workload

COUNTED_PROMPTS = 64
"""Number of prompts rendered to count tokens."""


@dataclass(frozen=True)
class Measured:
    """Measurements of one finished run.

    Attributes:
        folder: the run directory.
        config: the run's configuration.
        log: properties of the run's log, with token counts for the planned settings (by default, the run's own).
        seconds: wall time of each stage.
        gigabytes: size of each stage's artefacts.
    """

    folder: Path
    config: Config
    log: Log
    seconds: dict[str, float]
    gigabytes: dict[str, float]


@dataclass(frozen=True)
class Line:
    """Seconds of a stage: ``fixed + slope * units``."""

    fixed: float
    slope: float

    def __call__(self, units: float) -> float:
        return self.fixed + self.slope * units


def measured(folder: str | Path, planned: Config | None = None) -> Measured:
    """Read the measurements of a finished run.

    Tokens are counted in prompts that are rendered with the settings of ``planned``, by default the run's own
    configuration.

    Raises:
        ArtifactError: the run is not finished.
    """
    folder = Path(folder)
    stored = folder / STORED
    config = load_config(stored) if stored.exists() else None
    names = [stage.key for stage in stages_of(config or Config())]
    missing = [name for name in names if not (folder / name / MANIFEST).exists()]
    if missing or config is None:
        raise ArtifactError(
            "The run is not finished, so its rates cannot be measured.",
            where=str(folder),
            expected="every stage done",
            found="missing: " + (", ".join(missing) or STORED),
            fix=resume_command(folder),
        )
    Verifier().demand(folder, names)
    manifests = {name: read_manifest(folder / name) for name in names}
    gigabytes = {name: sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file()) / 1e9 for name in names}
    log = _log(folder, config, planned or config, manifests)
    return Measured(
        folder, config, log, {name: float(manifest["seconds"]) for name, manifest in manifests.items()}, gigabytes
    )


def fit(runs: Sequence[Measured]) -> dict[str, Line]:
    """Fit each stage's line to the runs that include the stage, by least squares on relative errors.

    If these runs all have the same number of units, the line passes through the origin.
    """
    seen: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for name, amount in workload(run.config, run.log).items():
            seen.setdefault(name, []).append((amount.units, run.seconds[name]))
    return {name: _line(*np.array(pairs).T) for name, pairs in seen.items()}


def _line(units: np.ndarray, seconds: np.ndarray) -> Line:
    weights = 1.0 / np.maximum(seconds, 1e-3)
    origin = Line(0.0, float((weights**2 * units * seconds).sum() / max((weights**2 * units**2).sum(), 1e-12)))
    if len(np.unique(units)) < 2:
        return origin
    design = np.stack([weights, weights * units], 1)
    fixed, slope = np.linalg.lstsq(design, weights * seconds, rcond=None)[0]
    if slope < 0:  # noise: the time of this stage hardly grows
        return Line(float((weights**2 * seconds).sum() / (weights**2).sum()), 0.0)
    return Line(float(fixed), float(slope)) if fixed >= 0 else origin


def _log(folder: Path, config: Config, planned: Config, manifests: dict[str, Any]) -> Log:
    from taiji.language.causal_lm import load_tokenizer
    from taiji.language.token_ids import ids_of
    from taiji.reasoning.prompts import student_prompts, true_answers
    from taiji.reasoning.settings import PromptSettings
    from taiji.reasoning.teachers import teacher_requests

    dataset = open_dataset(folder / "data" / "dataset")
    tokenizer = load_tokenizer(config.language)

    def tokens(texts: Sequence[str]) -> float:
        return float(np.mean([len(ids_of(tokenizer, text)) for text in texts])) if len(texts) else 0.0

    examples = pl.read_parquet(folder / "examples" / "examples.parquet").head(COUNTED_PROMPTS)
    prompts: PromptSettings = planned.reasoning.prompts
    teacher = [
        " ".join(m["content"] for m in messages)
        for messages, _ in teacher_requests(dataset, examples, planned.reasoning.teacher, prompts, tokenizer)
    ]
    rationales = pl.read_parquet(folder / "rationales" / "rationales.parquet")["rationale"]
    rationales = rationales.filter(rationales != "")  # unusable rationales are stored empty
    completions = pl.read_parquet(folder / "answers" / "aligned.parquet")["completion"]
    rows = read_json(folder / "examples" / "split.json")["rows"]["exposures"]
    facts = {name: manifest["facts"] for name, manifest in manifests.items()}
    # Texts grow with their limit, so measured lengths are scaled to the planned limit.
    longer = planned.generation.max_new_tokens / config.generation.max_new_tokens
    reasoned = (
        planned.reasoning.teacher.max_new_tokens / config.reasoning.teacher.max_new_tokens
        if config.reasoning.teacher.kind == "local"
        else 1.0
    )
    refreshes = planned.size.feature_refreshes / config.size.feature_refreshes
    return Log(
        users=dataset.n_users,
        events_per_user=manifests["data"]["facts"]["events"] / dataset.n_users,
        exposures_per_user=tuple(rows[period] / dataset.n_users for period in PERIODS),  # type: ignore[arg-type]
        items=dataset.n_items,
        feature_rows_per_user=refreshes * facts["features"]["rows"] / max(facts["features"]["users"], 1),
        student_tokens=tokens(student_prompts(dataset, examples, prompts, tokenizer)["prompt"].to_list()),
        teacher_tokens=tokens(teacher),
        rationale_tokens=reasoned * tokens(rationales.to_list()),
        answer_tokens=longer * tokens(completions.to_list()),
        target_tokens=tokens([texts[0] for texts in true_answers(dataset, examples, prompts, most=prompts.most)]),
        kept_share=facts["selection"]["kept"] / max(facts["selection"]["judged"], 1),
    )
