"""Train or load the rankers of a run, or open a ranker that the configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taiji.core.errors import ConfigError
from taiji.data.knowledge_rows import read_knowledge, with_knowledge
from taiji.models.ranking.external import open_ranker
from taiji.models.ranking.train import load_ranker, train_ranker

if TYPE_CHECKING:
    import polars as pl

    from taiji.core.settings import Settings
    from taiji.data import Dataset
    from taiji.models.ranking.external import PairScorer
    from taiji.models.ranking.ranker import Ranker
    from taiji.models.ranking.settings import NeuralRankerSettings
    from taiji.models.ranking.train import RankingModel
    from taiji.pipeline.engine import Context

KNOWLEDGE_STAGE = "item_knowledge"


def with_texts(dataset: Dataset, folder: Path) -> Dataset:
    """Return the dataset with the item knowledge in ``folder`` joined to its table of items; unchanged if the folder
    does not exist."""
    return with_knowledge(dataset, read_knowledge(folder / "knowledge.parquet")) if folder.is_dir() else dataset


def train(
    context: Context, dataset: Dataset, frame: pl.DataFrame, folder: str, settings: Settings | None = None
) -> RankingModel:
    """Train, store and return the configured ranker, or one with other settings.

    The ranker is stored in ``folder`` within the folder of the stage, and may read the item knowledge of the run.
    """
    if KNOWLEDGE_STAGE in context.needs:
        dataset = with_texts(dataset, context.input(KNOWLEDGE_STAGE))
    ranker = train_ranker(dataset, frame, settings or context.config.ranking, context.config.seed)
    ranker.save(context.folder / folder)
    return ranker


def settings_of(ranker: RankingModel, settings: Settings) -> Settings:
    """Return settings with the fields that a trained ranker has selected, so that all rankers of a comparison read the
    same fields."""
    from taiji.models.ranking.default_fields import settled
    from taiji.models.ranking.ranker import Ranker
    from taiji.models.ranking.settings import NeuralRankerSettings

    if not isinstance(ranker, Ranker) or not isinstance(settings, NeuralRankerSettings) or not ranker.worths:
        return settings
    return settled(settings, ranker.worths)


def neural_settings(settings: Settings) -> NeuralRankerSettings:
    """Return the settings, checked to be those of a neural ranker, which has a list of fields.

    Raises:
        ConfigError: the settings are those of another model.
    """
    from taiji.models.ranking.settings import NeuralRankerSettings

    if not isinstance(settings, NeuralRankerSettings):
        raise ConfigError(
            "The ranking model has no list of fields, so no field can be left out of it.",
            where="recommend.without_fields",
            expected="a ranking model whose settings extend NeuralRankerSettings",
            found=type(settings).__name__,
            fix="choose another model, or remove recommend.without_fields",
        )
    return settings


def settled_once(dataset: Dataset, rows: pl.DataFrame, settings: Settings, seed: int) -> Settings:
    """Return settings with the fields selected on these rows. This trains a ranker only if fields are selected by their
    gain."""
    from taiji.models.ranking.default_fields import must_pay

    return settings_of(train_ranker(dataset, rows, settings, seed), settings) if must_pay(settings) else settings


def load_trained(context: Context, stage: str, dataset: Dataset) -> RankingModel:
    """Load the ranker that a stage has trained."""
    return load_ranker(context.input(stage) / "ranker", dataset)


def scoring_slates(ranker: RankingModel, instead: str) -> Ranker:
    """Return the ranker if it can rank candidates.

    Args:
        ranker: trained ranker.
        instead: alternative to name in the error.

    Raises:
        ConfigError: the ranker does not score slates.
    """
    from taiji.models.ranking.ranker import Ranker

    if not isinstance(ranker, Ranker):
        raise ConfigError(
            "The ranking model does not score slates, so it cannot rank candidates.",
            where="ranking.model",
            expected="a subclass of taiji.models.ranking.ranker.Ranker",
            found=type(ranker).__name__,
            fix=f"choose {instead}",
        )
    return ranker


def reward_ranker(context: Context, dataset: Dataset) -> PairScorer:
    """Return the ranker whose scores are rewards in alignment: the one that ``own_ranker.reward`` names, or that of the
    stage ``reward``."""
    own = context.config.own_ranker
    return open_ranker(own.reward, dataset, own.external) if own.reward else load_trained(context, "reward", dataset)


def evaluation_ranker(context: Context, dataset: Dataset) -> PairScorer:
    """Return the ranker that evaluates the models' answers: the one that ``own_ranker.evaluation`` names, or that of
    the stage ``evaluation_ranker``."""
    own = context.config.own_ranker
    if own.evaluation:
        return open_ranker(own.evaluation, dataset, own.external)
    return load_trained(context, "evaluation_ranker", dataset)
