"""Short uplift ladder of one log without a language model: its rungs, one control, the oracle, and the decision
table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.experiments.decision import decisions
from taiji.experiments.ladder import climb
from taiji.experiments.uplift_rungs import ladder
from taiji.experiments.uplift_trial import Trial, log_facts


def climbed(
    dataset: Dataset,
    embedder: str,
    seeds: int,
    resamples: int,
    *,
    rows: int,
    level: float = 0.95,
    models: Sequence[str] = ("taiji",),
) -> dict[str, Any]:
    """Return the ``ladder`` without a language model, the log's ``facts`` and the resulting ``decisions``.

    If the log is too short, there are no facts, and ``left_out`` is the reason.

    Args:
        dataset: the log.
        embedder: embedder of the texts.
        seeds: trainings per rung.
        resamples: resamples of users and seeds.
        rows: approximate largest number of candidates.
        level: coverage of the intervals.
        models: names in :data:`taiji.experiments.ladder.MODELS`; decisions use the first one.
    """
    try:
        trial = Trial.of(dataset, most=rows)
        rungs = [rung for rung in ladder(embedder) if "control" not in rung.name or "permuted" in rung.name]
        found = list(climb(trial, rungs, models, seeds=seeds, resamples=resamples, level=level))
    except InputError as error:
        return {"ladder": [], "decisions": [], "left_out": str(error)}
    facts = log_facts(trial)
    own = [row for row in found if row["model"] == models[0]]
    return {"ladder": found, "facts": facts, "decisions": decisions(facts, own, dataset.n_items)}
