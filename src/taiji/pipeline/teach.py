"""Stages `rationales`, `selection` and `sft`: the teacher writes, perplexity selects, the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.artifacts import in_chunks, write_parquet
from taiji.language.models import load_language_model
from taiji.pipeline.prepare import load, load_examples
from taiji.progress import progress
from taiji.reasoning.prompts import student_prompts
from taiji.reasoning.selection import Calibration, calibrate, score_rationales, select
from taiji.reasoning.sft import sft_rows, train_sft
from taiji.reasoning.teachers import LocalTeacher
from taiji.reasoning.writer import RuleWriter

if TYPE_CHECKING:
    from taiji.language.models import LanguageModel
    from taiji.pipeline.engine import Context
    from taiji.reasoning.teachers import Teacher


def _base(context: Context) -> LanguageModel:
    settings = context.config.language
    return load_language_model(settings.model, settings.dtype, settings.device)


def _taught(context: Context) -> pl.DataFrame:
    return pl.concat([load_examples(context, "calibration"), load_examples(context, "rationale")])


def _teacher(context: Context) -> Teacher:
    reasoning = context.config.reasoning
    if reasoning.teacher.kind == "writer":
        return RuleWriter(reasoning.prompts, reasoning.teacher.answer_in_view)
    if reasoning.teacher.kind == "endpoint":
        from taiji.reasoning.endpoint import EndpointTeacher

        # The journal lies beside the stages, not in one: what was paid for once serves every later configuration too.
        return EndpointTeacher(reasoning.endpoint, reasoning.teacher, reasoning.prompts, _base(context).tokenizer, context.run / "teacher")
    return LocalTeacher(_base(context), reasoning.teacher, reasoning.prompts)


def rationales(context: Context) -> dict[str, Any]:
    """Let the teacher, shown the true next item, write k rationales a prompt."""
    config, dataset, examples = context.config, load(context), _taught(context)
    settings = config.reasoning.teacher
    teacher = _teacher(context)

    def work(_: int, chosen: Sequence[int]) -> pl.DataFrame:
        return teacher.write(dataset, examples[list(chosen)], settings.rationales, config.seed)

    with progress("Writing rationales", len(examples), "prompts") as update:
        written = in_chunks(range(len(examples)), config.size.chunk, work, context.scratch, on_done=update)
    write_parquet(context.folder / "rationales.parquet", written)
    return {"prompts": len(examples), "rationales": len(written)}


def selection(context: Context) -> dict[str, Any]:
    """Score every rationale by the perplexity of the true answer, set the threshold, and judge."""
    config, dataset, examples = context.config, load(context), _taught(context)
    settings, lm = config.reasoning, _base(context)
    written = pl.read_parquet(context.input("rationales") / "rationales.parquet")

    def work(_: int, chosen: Sequence[int]) -> pl.DataFrame:
        part = examples[list(chosen)]
        mine = written.filter(pl.col("example").is_in(part["example"].implode()))
        return score_rationales(lm, dataset, part, mine, settings.selection, settings.prompts)

    with progress("Scoring rationales", len(examples), "prompts") as update:
        scored = in_chunks(range(len(examples)), config.size.chunk, work, context.scratch, on_done=update)
    calibrating = pl.col("example").is_in(load_examples(context, "calibration")["example"].implode())
    calibration: Calibration = calibrate(scored.filter(calibrating), settings.selection)
    calibration.save(context.folder / "calibration.json")
    verdicts = select(scored.filter(~calibrating), calibration, settings.selection)
    write_parquet(context.folder / "verdicts.parquet", verdicts)
    prompts = student_prompts(dataset, examples, settings.prompts, lm.tokenizer)
    write_parquet(context.folder / "prompts.parquet", prompts.select("example", "kept", "dropped"))
    return {"judged": len(verdicts), "kept": int(verdicts["kept"].sum()), "threshold": calibration.threshold}


def sft(context: Context) -> dict[str, Any]:
    """Fine-tune the language model on the kept rationales and the true answers."""
    config, dataset, lm = context.config, load(context), _base(context)
    kept = pl.read_parquet(context.input("selection") / "verdicts.parquet").filter("kept")
    rows = sft_rows(dataset, load_examples(context, "rationale"), kept, config.reasoning.prompts, lm.tokenizer)
    losses = train_sft(lm, rows, config.reasoning.sft, context.folder / "model", config.seed)
    write_parquet(context.folder / "losses.parquet", losses)
    return {"rows": len(rows), "steps": len(losses)}
