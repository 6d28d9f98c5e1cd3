"""Write traces of all candidates of sampled requests, and evaluate lists off-policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.cascade.evaluation import WHOLE, baseline_arms, padded
from taiji.core.artifacts import write_parquet
from taiji.core.progress import progress
from taiji.experiments.list_value import list_values, logged_lists

if TYPE_CHECKING:
    from taiji.cascade.cascade import Cascade
    from taiji.cascade.settings import RecommendSettings
    from taiji.core.component import Requests
    from taiji.data import Dataset
    from taiji.experiments.world_lists import WorldTruth
    from taiji.metrics.list_metrics import Targets
    from taiji.pipeline.run_recommender import Components

Array = NDArray[Any]
BLOCK = 128
"""Number of requests per batch of the cascade."""


def write_traces(
    folder: Path,
    settings: RecommendSettings,
    dataset: Dataset,
    parts: Components,
    requests: Requests,
    targets: Targets,
    truth: WorldTruth | None,
    seed: int,
) -> int:
    """Write ``requests.parquet`` and ``traces.parquet`` for a seeded sample of requests, and return the sample size.

    A trace has one row per request and candidate. It has the columns of :mod:`taiji.cascade.trace` and ``target`` (True
    if the user interacted with the item later). In a simulated world it also has the user's true probabilities (``true
    click``, …).
    """
    count = min(settings.traced, len(requests))
    if not count:
        return 0
    chosen = np.sort(np.random.default_rng([seed, len(requests)]).choice(len(requests), count, replace=False))
    traced = requests.take(chosen)
    found = parts.cascade(settings, dataset).recommend(traced, settings.length, trace=True)
    assert found.trace is not None
    frame, wanted = found.trace, [targets.items[targets.offsets[at] : targets.offsets[at + 1]] for at in chosen]
    row, item = frame["request"].to_numpy(), frame["item"].to_numpy()
    owner = np.repeat(np.arange(count), [len(items) for items in wanted])
    keys = owner * dataset.n_items + np.concatenate(wanted)
    columns: dict[str, Array] = {"target": np.isin(row * dataset.n_items + item, keys)}
    if truth is not None:
        columns |= truth.of_candidates(traced.take(row), item)
    write_parquet(folder / "traces.parquet", frame.with_columns(pl.Series(name, v) for name, v in columns.items()))
    about = {"request": np.arange(count), "user": traced.user, "time": traced.time}
    about |= {name: traced.columns[name] for name in dataset.context}
    frame = pl.DataFrame({**about, "targets": [items.tolist() for items in wanted]})
    write_parquet(folder / "requests.parquet", frame)
    return count


def off_policy_values(
    settings: RecommendSettings,
    dataset: Dataset,
    parts: Components,
    start: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int,
) -> dict[str, Any] | None:
    """Return off-policy estimates of the value of the recommender's lists, and of the lists of each baseline alone.

    The estimates use the log of the test period. The result is None if the log has no propensities.
    """
    logged = logged_lists(dataset, start, settings.requests, seed)
    if logged is None:
        return None
    requests = parts.featured(logged.requests)
    cascades = {WHOLE: parts.cascade(settings, dataset)}
    for arm, title in baseline_arms(settings, parts.retrievers).items():
        cascades[f"{title} alone"] = parts.cascade(settings, dataset, names=[arm])
    lists = {
        name: _lists(f"logged requests: {name}", cascade, requests, settings.length)
        for name, cascade in cascades.items()
    }
    return list_values(logged, lists, WHOLE, resamples=resamples, level=level, seed=seed)


def _lists(title: str, cascade: Cascade, requests: Requests, length: int) -> Array:
    """Return the recommended lists (B, length)."""
    parts = []
    with progress(title, len(requests)) as update:
        for at in range(0, len(requests), BLOCK):
            found = cascade.recommend(requests.take(slice(at, at + BLOCK)), length)
            parts.append(padded(found.slate.items, length))
            update(min(at + BLOCK, len(requests)))
    return np.concatenate(parts)
