"""The serving backend of a run directory made by the pipeline; see :class:`taiji.serving.releases.Backend`.

A run has features (``taiji run``), a recommender (``taiji recommend``), or both if the two commands used the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from taiji.core.manifests import Verifier
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.types import FeatureRow, FeaturesOnly, FeatureWriter, Intents, Recommender, Release, Scorer

PORTION = 1000


def release(run: Path) -> Release:
    """Return the release of a run, without loading models.

    Its name joins the run's name and, as far as the run has them, the shortened versions of the feature table's model
    and quantiser and of the recommender.
    """
    from taiji.serving.live_dataset import read_features
    from taiji.serving.recommender_files import has_recommender, recommender_version

    name, recommender = re.sub(r"[^A-Za-z0-9._-]", "_", run.name), ""
    if has_recommender(run):
        recommender = recommender_version(run)
        if not _has_features(run):
            return Release(f"{name}-{recommender[:8]}", str(run), recommender, "")
    Verifier().demand_whole(run, ("alignment", "evaluation_ranker", "ranking"))
    model, quantizer = read_features(run).select("model_version", "quantizer_version").row(0)
    versions = [model[:8], quantizer[:8], *([recommender[:8]] if recommender else [])]
    return Release("-".join([name, *versions]), str(run), model, quantizer)


def rows(run: Path) -> Iterator[Sequence[FeatureRow]]:
    """Yield batches of feature rows, only the newest row of each user; nothing if the run has only a recommender.

    ``events_seen`` is 0, because the rows do not depend on events of the service.
    """
    from taiji.serving.live_dataset import World, read_features
    from taiji.serving.recommender_files import has_recommender

    if has_recommender(run) and not _has_features(run):
        return
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
                intents=Intents.of(row),
            )
            for row in batch.iter_rows(named=True)
        ]


def writer(run: Path, settings: ServingSettings, store: Store) -> FeatureWriter:
    """Load the run's feature writer: language model, embedder, quantiser and pool of look-alikes."""
    from taiji.serving.feature_writer import from_run

    return from_run(run, settings, store)


def scorer(run: Path, settings: ServingSettings) -> Scorer | Recommender:
    """Load the run's rankers and recommender, as far as it has them."""
    from taiji.serving.live_dataset import World
    from taiji.serving.recommender import recommender_of
    from taiji.serving.recommender_files import has_recommender
    from taiji.serving.scorer import scorer_of

    del settings  # the models are defined by the run's own configuration
    world, rankers = World(run), None
    if not has_recommender(run):
        return scorer_of(world)
    if _has_features(run):
        with suppress(FeaturesOnly):
            rankers = scorer_of(world)
    return recommender_of(world, rankers)


def _has_features(run: Path) -> bool:
    return (run / "features").is_dir()
