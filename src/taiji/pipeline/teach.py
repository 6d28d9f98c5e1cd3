"""Stages `rationales`, `selection` and `sft`: the teacher writes, perplexity selects, the student learns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.artifacts import write_parquet
from taiji.language.vllm_engine import with_engine
from taiji.pipeline.prepare import load_examples, stored
from taiji.pipeline.run_models import base_model
from taiji.reasoning.prompts import student_prompts
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import Calibration, calibrate, score_rationales, select
from taiji.reasoning.sft import sft_rows, train_sft
from taiji.reasoning.teachers import LocalTeacher

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work
    from taiji.reasoning.teachers import Teacher


def _taught(context: Context) -> pl.DataFrame:
    return pl.concat([load_examples(context, "calibration"), load_examples(context, "rationale")])


def _teacher(context: Context) -> Teacher:
    reasoning = context.config.reasoning
    if reasoning.teacher.kind == "writer":
        return RuleWriter(reasoning.prompts, reasoning.teacher.answer_in_view)
    if reasoning.teacher.kind == "endpoint":
        from taiji.reasoning.endpoint import EndpointTeacher

        # The journal lies beside the stages, not in one: what was paid for once serves every later configuration too.
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


def rationales(context: Context) -> dict[str, Any]:
    """Let the teacher, shown the true next item, write k rationales a prompt."""
    examples = _taught(context)
    # One process keeps the endpoint's budget, its rate limit and its journal; it waits for the network, not for a core.
    here = context.config.reasoning.teacher.kind == "endpoint"
    written = context.over(examples, partial(_open_writing, context), "Writing rationales", "prompts", here=here)
    write_parquet(context.folder / "rationales.parquet", written)
    return {"prompts": len(examples), "rationales": len(written)}


def _open_writing(context: Context) -> Work:
    config, dataset, teacher = context.config, stored(context), _teacher(context)
    return lambda part: teacher.write(dataset, part, config.reasoning.teacher.rationales, config.seed)


def selection(context: Context) -> dict[str, Any]:
    """Score every rationale by the perplexity of the true answer, set the threshold, and judge."""
    config, examples = context.config, _taught(context).select("example", "user", "as_of", "target")
    settings = config.reasoning
    written = pl.read_parquet(context.input("rationales") / "rationales.parquet")
    rows = written.join(examples, on="example", how="left", maintain_order="left")
    # An example's rationales stay together: what they share is computed once.
    size = config.size.chunk * settings.teacher.rationales
    scored = context.over(
        rows, partial(_open_scoring, context, written.columns), "Scoring rationales", "rationales", size=size
    )
    prompts = scored.select("example", kept="prompt_kept", dropped="prompt_dropped").unique(
        "example", keep="first", maintain_order=True
    )
    scored = scored.drop("prompt_kept", "prompt_dropped")
    calibrating = pl.col("example").is_in(load_examples(context, "calibration")["example"].implode())
    calibration: Calibration = calibrate(scored.filter(calibrating), settings.selection)
    calibration.save(context.folder / "calibration.json")
    verdicts = select(scored.filter(~calibrating), calibration, settings.selection)
    write_parquet(context.folder / "verdicts.parquet", verdicts)
    write_parquet(context.folder / "prompts.parquet", prompts)
    return {"judged": len(verdicts), "kept": int(verdicts["kept"].sum()), "threshold": calibration.threshold}


def _open_scoring(context: Context, columns: list[str]) -> Work:
    settings, dataset, lm = (
        context.config.reasoning,
        stored(context),
        with_engine(base_model(context.config), context.config.language),
    )

    def work(part: pl.DataFrame) -> pl.DataFrame:
        examples = part.select("example", "user", "as_of", "target").unique(
            "example", keep="first", maintain_order=True
        )
        prompts = student_prompts(dataset, examples, settings.prompts, lm.tokenizer).select(
            "example", prompt_kept="kept", prompt_dropped="dropped"
        )
        scored = score_rationales(lm, dataset, examples, part.select(columns), settings.selection, settings.prompts)
        return scored.join(prompts, on="example", how="left", maintain_order="left")

    return work


def sft(context: Context) -> dict[str, Any]:
    """Fine-tune the language model on the kept rationales and the true answers."""
    config, dataset, lm = context.config, stored(context), base_model(context.config)
    kept = pl.read_parquet(context.input("selection") / "verdicts.parquet").filter("kept")
    rows = sft_rows(dataset, load_examples(context, "rationale"), kept, config.reasoning.prompts, lm.tokenizer)
    losses = train_sft(lm, rows, config.reasoning.sft, context.folder / "model", config.seed)
    write_parquet(context.folder / "losses.parquet", losses)
    return {"rows": len(rows), "steps": len(losses)}
