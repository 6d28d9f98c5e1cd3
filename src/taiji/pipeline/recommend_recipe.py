"""Recipe of a recommender: from a log to fitted retrievers, a ranker, and the evaluation of each component."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taiji.core.errors import ConfigError
from taiji.pipeline.stage import Stage
from taiji.pipeline.stages.candidate_ranker_stage import CandidateRanker
from taiji.pipeline.stages.closed_loop_stage import ClosedLoop
from taiji.pipeline.stages.data_stage import Data
from taiji.pipeline.stages.fusion_stage import Fusion
from taiji.pipeline.stages.ranker_without_stage import RankerWithout, check_left_out
from taiji.pipeline.stages.recommend_report_stage import RecommendReport
from taiji.pipeline.stages.recommendation_stage import Recommendation
from taiji.pipeline.stages.retriever_stage import RetrieverStage

if TYPE_CHECKING:
    from taiji.config import Config

NAME = re.compile(r"[a-z0-9_]+")
"""Pattern of a retriever's name, which becomes a folder."""


def recommend_stages(config: Config) -> tuple[Stage, ...]:
    """Return the stages: data, one stage per retriever, ranker and fusion if configured, evaluation, the closed loop if
    the source is a simulated world, and the report page.

    Raises:
        ConfigError: a retriever has an invalid name or unknown settings, the run in ``recommend.features`` has no
            features, or the ranker lacks a field in ``recommend.without_fields``.
    """
    from taiji.cascade.assembly import fitted_fusion, make_fuser, make_merge, make_retriever
    from taiji.features.other_run import features_run

    settings = config.recommend
    wrong = [name for name in settings.retrievers if not NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(
            "The name is not a valid name of a retriever.",
            where="recommend.retrievers",
            expected="lower-case letters, digits and _",
            found=", ".join(map(repr, wrong)),
        )
    for name, values in settings.retrievers.items():
        make_retriever(name, values)  # report invalid settings now rather than after the earlier stages
    make_merge(settings, list(settings.retrievers))
    fitted = settings.rank and fitted_fusion(settings)
    if settings.rank:
        make_fuser(settings)  # report invalid settings now
    if settings.features is not None:
        features_run(settings.features)
    check_left_out(config)
    names = list(settings.retrievers)
    looped = is_world(config) and settings.closed_loop_users > 0
    fitting = (
        *(RetrieverStage(name, values) for name, values in settings.retrievers.items()),
        *((CandidateRanker(),) * settings.rank),
        *(RankerWithout(field) for field in settings.without_fields),
        *((Fusion(),) * fitted),
    )
    return (
        Data(),
        *fitting,
        Recommendation(names, settings.rank, fitted, settings.without_fields),
        *((ClosedLoop(names, settings.rank, fitted),) * looped),
        RecommendReport(tuple(stage.key for stage in fitting), looped),
    )


def is_world(config: Config) -> bool:
    """Return True if the log comes from a simulated world."""
    return config.data.mapping is None and config.data.source.partition(":")[0] == "world"
