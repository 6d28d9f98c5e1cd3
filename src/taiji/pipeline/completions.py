"""Generate completions with a run's models, and embed texts, in partitions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.core.errors import ConfigError
from taiji.core.number_format import thousands
from taiji.language.embed import load_embedder
from taiji.language.generate import Written, write
from taiji.language.token_ids import ids_of
from taiji.language.vllm_engine import with_engine
from taiji.pipeline.run_data import stored
from taiji.pipeline.run_models import load_model
from taiji.reasoning.answer_sets import set_answers
from taiji.reasoning.answers import ends_in_loop
from taiji.reasoning.prompts import opened, student_prompts

if TYPE_CHECKING:
    from taiji.language.causal_lm import LanguageModel
    from taiji.language.settings import GenerationSettings
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work

logger = logging.getLogger(__name__)
TEXTS_PER_PARTITION = 4096
"""Number of texts in a partition when embedding."""
MANY_CUT = 0.25
"""Share of truncated completions above which :func:`warn_of_cut` logs a warning."""


def complete(context: Context, rows: pl.DataFrame, which: str) -> pl.DataFrame:
    """Return one completion per row (`example`, `user`, `as_of`), whether the length limit truncated it, and its token
    counts.

    ``kept`` and ``dropped`` are the numbers of interactions that the prompt shows and leaves out.
    """
    return context.over(
        rows, partial(_open_answering, context, which), f"{which} model answers", "prompts", folder=which
    )


def _open_answering(context: Context, which: str) -> Work:
    config, dataset = context.config, stored(context)
    lm = with_engine(load_model(context, which), config.language)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        prompts = student_prompts(dataset, part, config.reasoning.prompts, lm.tokenizer)
        asked = [opened(prompt) for prompt in prompts["prompt"]]
        texts = write(lm, asked, settings=config.generation, seed=config.seed)
        return part.select("example", "user", "as_of").with_columns(
            prompts["kept"],
            prompts["dropped"],
            completion=pl.Series([text[0].text for text in texts], dtype=pl.String),
            cut=pl.Series([text[0].cut for text in texts], dtype=pl.Boolean),
            **_tokens(lm, asked, texts),
        )

    return work


def _tokens(lm: LanguageModel, asked: Sequence[str], written: Sequence[Sequence[Written]]) -> dict[str, pl.Series]:
    """Return, for each row, the number of tokens read (its prompt, counted once) and written (in all samples)."""
    read = [len(ids_of(lm.tokenizer, prompt)) for prompt in asked]
    completion_lengths = [sum(len(ids_of(lm.tokenizer, sample.text)) for sample in row) for row in written]
    return {
        "prompt_tokens": pl.Series(read, dtype=pl.UInt32),
        "completion_tokens": pl.Series(completion_lengths, dtype=pl.UInt32),
    }


def complete_sets(context: Context, rows: pl.DataFrame, which: str, what: str = "") -> pl.DataFrame:
    """Sample ``features.intent_samples`` answers per row, and return the first of them and the intents of all.

    Args:
        context: context of the stage.
        rows: rows, as for :func:`complete`.
        which: name of the model.
        what: suffix that distinguishes this job from others with the same model.

    Returns:
        the columns of :func:`complete`, which describe the first answer (except ``completion_tokens``, the sum over all
        answers), and lists with one entry per intent: ``intent_texts`` (in the form of item texts for embedding),
        ``intent_levels`` and ``intent_weights``. With one answer, a weight is the geometric mean of the intent's token
        probabilities; with several answers, every weight is 1.
    """
    samples = context.config.features.intent_samples
    if samples > 1 and context.config.generation.temperature == 0:
        raise ConfigError(
            "Several samples are requested at temperature 0, where all samples are equal.",
            where="features.intent_samples",
            expected="1, or a generation.temperature above 0",
            found=f"{samples} samples at temperature 0",
        )
    return context.over(
        rows, partial(_open_answering_sets, context, which), f"{which} model answers", "prompts", folder=which + what
    )


def _open_answering_sets(context: Context, which: str) -> Work:
    config, dataset = context.config, stored(context)
    lm, depth = with_engine(load_model(context, which), config.language), len(dataset.levels)
    samples, most = config.features.intent_samples, config.reasoning.prompts.most

    def work(part: pl.DataFrame) -> pl.DataFrame:
        prompts = student_prompts(dataset, part, config.reasoning.prompts, lm.tokenizer)
        asked = [opened(prompt) for prompt in prompts["prompt"]]
        written = write(lm, asked, n=samples, settings=config.generation, seed=config.seed)
        sets = set_answers(lm, asked, written, depth, most, config.generation.batch_size)
        return part.select("example", "user", "as_of").with_columns(
            prompts["kept"],
            prompts["dropped"],
            completion=pl.Series([row[0].text for row in written], dtype=pl.String),
            cut=pl.Series([row[0].cut for row in written], dtype=pl.Boolean),
            **_tokens(lm, asked, written),
            intent_texts=pl.Series([answer.texts for answer in sets], dtype=pl.List(pl.String)),
            intent_levels=pl.Series([answer.levels for answer in sets], dtype=pl.List(pl.List(pl.String))),
            intent_weights=pl.Series([answer.weights for answer in sets], dtype=pl.List(pl.Float64)),
        )

    return work


def warn_of_cut(completions: pl.DataFrame, settings: GenerationSettings) -> None:
    """Warn if the length limit ended many completions. The warning also says how many of them end in a loop, and names
    settings to try.

    Args:
        completions: columns ``completion`` and ``cut``.
        settings: generation settings with which the completions were written.
    """
    texts = completions.filter("cut")["completion"].to_list()
    if len(texts) <= MANY_CUT * len(completions):
        return
    loops = sum(map(ends_in_loop, texts))
    advice = [f"generation.max_new_tokens above {settings.max_new_tokens}"]
    if 2 * loops > len(texts):
        greedy = "generation.temperature: 0.7" if settings.temperature == 0 else ""
        penalty = "generation.repetition_penalty: 1.1" if settings.repetition_penalty <= 1 else ""
        advice = [change for change in (greedy, penalty) if change] or advice
    logger.warning(
        "%s of %s answers reached generation.max_new_tokens (%s) before they ended, and %s of them repeat one piece of text. Text that is missing "
        "at their end is also missing from the features. Try %s.",
        thousands(len(texts)), thousands(len(completions)), settings.max_new_tokens, thousands(loops), " or ".join(advice),
    )  # fmt: skip


def embed(context: Context, texts: list[str], what: str) -> np.ndarray:
    """Return (N, d) float32 embeddings of texts."""
    rows = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    vectors = context.over(
        rows,
        partial(_open_embedding, context),
        f"Embedding {what}",
        "texts",
        folder=f"embed-{what}",
        size=TEXTS_PER_PARTITION,
        here=len(texts) <= TEXTS_PER_PARTITION,
    )
    return vectors["vector"].to_numpy()


def _open_embedding(context: Context) -> Work:
    embedder = load_embedder(context.config.embedder.name, context.config.embedder.device)
    kind = pl.Array(pl.Float32, embedder.dimension)
    return lambda part: pl.DataFrame({"vector": pl.Series(embedder.encode(part["text"].to_list()), dtype=kind)})
