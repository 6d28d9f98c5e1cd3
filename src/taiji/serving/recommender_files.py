"""Read a run's recommender settings and version without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taiji.cascade.assembly import fitted_fusion
from taiji.cascade.settings import EVALUATION_KEYS, RecommendSettings
from taiji.core.artifacts import read_json, value_hash
from taiji.core.errors import ArtifactError
from taiji.core.manifests import Verifier, read_manifest
from taiji.language.settings import EmbedderSettings

STAGE = "recommendation"
DEFAULT_EMBEDDER = EmbedderSettings().name


def has_recommender(run: Path) -> bool:
    """Return whether a run was made by ``taiji recommend``."""
    return (run / STAGE / "manifest.json").is_file()


def recommender_version(run: Path) -> str:
    """Return the hash of everything on which a run's lists depend, without loading a model.

    Raises:
        ArtifactError: a stage is not finished, or damaged.
    """
    config = read_json(run / "config.json")
    settings = recommender_settings(run, config)
    stages = ["data", *(f"retriever-{name}" for name in settings.retrievers), *(("candidate_ranker",) * settings.rank)]
    stages += ["fusion"] * (settings.rank and fitted_fusion(settings))
    Verifier().demand(run, stages)
    outputs = {stage: read_manifest(run / stage)["output"] for stage in stages}
    # The path of the features does not matter: the output of the ranker's stage identifies them.
    composed = settings.model_dump(mode="json", exclude={*EVALUATION_KEYS, "features"})
    parts = [outputs, composed, list(settings.retrievers)]
    embedder = EmbedderSettings.model_validate(config.get("embedder", {})).name
    # The default embedder is left out, so that versions from before the embedder was hashed stay valid.
    if settings.rerank != "none" and embedder != DEFAULT_EMBEDDER:
        parts.append(embedder)
    return value_hash(parts)[:16]


def recommender_settings(run: Path, config: Mapping[str, Any]) -> RecommendSettings:
    """Return the settings section ``recommend``, with the retrievers in the order in which they were evaluated.

    The stored settings do not keep this order.

    Raises:
        ArtifactError: the evaluated retrievers are not those of the settings.
    """
    settings = RecommendSettings.model_validate(config.get("recommend", {}))
    names = read_json(run / STAGE / "recommendation.json").get("retrievers", ())
    if set(names) != set(settings.retrievers):
        raise ArtifactError(
            "The run's recommender does not match its configuration.",
            where=str(run / STAGE),
            expected=", ".join(settings.retrievers),
            found=", ".join(names) or "no list of retrievers",
            fix=f"evaluate it again with taiji recommend CONFIG --name {run.name} --resume",
        )
    return settings.model_copy(update={"retrievers": {name: settings.retrievers[name] for name in names}})
