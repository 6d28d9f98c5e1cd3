"""The serving backend of a run directory made by the pipeline; see :class:`taiji.serving.releases.Backend`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from taiji.core.manifests import Verifier
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.types import FeatureRow, FeatureWriter, Release, Scorer

PORTION = 1000


def release(run: Path) -> Release:
    """Named after the run and the versions in its feature table; a run whose artefacts are damaged is not served."""
    from taiji.serving.live_dataset import read_features

    Verifier().demand_whole(run, ("alignment", "evaluation_ranker", "ranking"))
    model, quantizer = read_features(run).select("model_version", "quantizer_version").row(0)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run.name)
    return Release(f"{name}-{model[:8]}-{quantizer[:8]}", str(run), model, quantizer)


def rows(run: Path) -> Iterator[Sequence[FeatureRow]]:
    """The newest row of each user in the run's feature table; ``events_seen`` counts events of the service, hence 0."""
    from taiji.serving.live_dataset import World, read_features

    world = World(run)
    names, items = world.dataset.users["user_id"].to_list(), world.item_names
    newest = read_features(run).sort("user", "available_at", "as_of").unique("user", keep="last", maintain_order=True)
    for batch in newest.iter_slices(PORTION):
        yield [
            FeatureRow(
                user=str(names[row["user"]]),
                as_of=row["as_of"],
                ids=tuple(row["ids"] or ()),
                neighbour=None if row["neighbour"] is None else str(names[row["neighbour"]]),
                neighbour_items=tuple(items[item] for item in row["neighbour_items"] or ()),
                model_version=row["model_version"],
                quantizer_version=row["quantizer_version"],
                generated_at=row["available_at"],
                events_seen=0,
                vector=None if row["vector"] is None else tuple(row["vector"]),
            )
            for row in batch.iter_rows(named=True)
        ]


def writer(run: Path, settings: ServingSettings, store: Store) -> FeatureWriter:
    """Load language model, embedder, quantiser and look-alike pool."""
    from taiji.serving.feature_writer import from_run

    return from_run(run, settings, store)


def scorer(run: Path, settings: ServingSettings) -> Scorer:
    """Load the rankers."""
    from taiji.serving.scorer import from_run

    return from_run(run, settings)
