"""Worker factories of the stages `rationales` (writing by the teacher) and `selection` (scoring by perplexity)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from taiji.language.vllm_engine import with_engine
from taiji.pipeline.run_data import load_examples, stored
from taiji.pipeline.run_models import base_model
from taiji.reasoning.prompts import student_prompts
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import score_rationales
from taiji.reasoning.teachers import LocalTeacher

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work
    from taiji.reasoning.teachers import Teacher


ASKED = ("example", "user", "as_of", "target", "targets")
"""Columns of an example that determine its prompts and true answers; ``targets`` exists only if answers are sets."""


def taught_examples(context: Context) -> pl.DataFrame:
    """Return the examples for which the teacher writes: calibration examples first, then rationale examples."""
    return pl.concat([load_examples(context, "calibration"), load_examples(context, "rationale")])


def _teacher(context: Context) -> Teacher:
    reasoning = context.config.reasoning
    if reasoning.teacher.kind == "writer":
        return RuleWriter(reasoning.prompts, reasoning.teacher.answer_in_view)
    if reasoning.teacher.kind == "endpoint":
        from taiji.reasoning.endpoint import EndpointTeacher

        # The journal is outside the stage folders, so that later configurations can reuse paid texts.
        return EndpointTeacher(
            reasoning.endpoint,
            reasoning.teacher,
            reasoning.prompts,
            base_model(context.config).tokenizer,
            context.run / "teacher",
        )
    return LocalTeacher(
        with_engine(base_model(context.config), context.config.language), reasoning.teacher, reasoning.prompts
    )


def open_writing(context: Context) -> Work:
    """Load the teacher and return the function that writes rationales for prompts."""
    config, dataset, teacher = context.config, stored(context), _teacher(context)
    return lambda part: teacher.write(dataset, part, config.reasoning.teacher.rationales, config.seed)


def open_scoring(context: Context, columns: list[str]) -> Work:
    """Load the language model and return the function that scores rationales.

    The function also returns how many interactions the prompt shows (``prompt_kept``) and omits (``prompt_dropped``).

    Args:
        context: context of the stage.
        columns: columns of the table of rationales.
    """
    settings, dataset, lm = (
        context.config.reasoning,
        stored(context),
        with_engine(base_model(context.config), context.config.language),
    )

    def work(part: pl.DataFrame) -> pl.DataFrame:
        examples = part.select(name for name in ASKED if name in part.columns)
        examples = examples.unique("example", keep="first", maintain_order=True)
        prompts = student_prompts(dataset, examples, settings.prompts, lm.tokenizer).select(
            "example", prompt_kept="kept", prompt_dropped="dropped"
        )
        scored = score_rationales(lm, dataset, examples, part.select(columns), settings.selection, settings.prompts)
        return scored.join(prompts, on="example", how="left", maintain_order="left")

    return work
