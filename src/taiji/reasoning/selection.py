"""ORFT: keep the rationales that make the true answer likely (Taiji §3).

PPL(c) = exp(-(1/T) Σ_t log P(y_t | prompt, c, y_<t)), y = the true answer's tokens inside ``<answer>``, prompt = the
*student's* prompt, in which the target is not. A rationale is kept when its perplexity is below a threshold R, the median over
rationales of calibration examples, which is set once and then frozen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.artifacts import read_json, value_hash, write_json
from taiji.data.dataset import Dataset
from taiji.errors import TaijiError
from taiji.language.chat import continuation
from taiji.reasoning.answers import answer_span, field_spans, format_completion
from taiji.reasoning.prompts import item_line, student_prompts
from taiji.reasoning.settings import PromptSettings, SelectionSettings

if TYPE_CHECKING:
    from taiji.language.models import LanguageModel


@dataclass(frozen=True)
class Calibration:
    """A frozen threshold.

    Attributes:
        threshold: R; a rationale's perplexity must be below it.
        quantile: which quantile of the calibration rationales it is.
        rationales: how many it was set on.
        fingerprint: hash of the calibration examples and samples.
    """

    threshold: float
    quantile: float
    rationales: int
    fingerprint: str

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote."""
        return cls(**read_json(path))


def answer_perplexities(
    lm: LanguageModel, prompts: list[str], rationales: list[str], answers: list[str], batch_size: int, description: str = "Scoring rationales"
) -> pl.DataFrame:
    """Perplexity of each answer after its prompt and rationale.

    Args:
        lm: the scoring model.
        prompts: (B,) rendered student prompts, without prefill.
        rationales: (B,) texts, may be empty.
        answers: (B,) texts as of ``item_line``.
        batch_size: texts a forward pass.
        description: what the progress display says.

    Returns:
        B rows: ``ppl`` over the whole answer text inside the tags (labels included, as the paper), ``ppl_title`` and
        ``ppl_category`` over the values alone, so that the boilerplate of the format dominates neither; null where an item
        has no category.
    """
    from taiji.language.score import perplexity, score_completions

    completions = [format_completion(r, a) for r, a in zip(rationales, answers, strict=True)]
    tails = [continuation(p, c) for p, c in zip(prompts, completions, strict=True)]
    rows = []
    for scored, completion, tail, rationale, answer in zip(
        score_completions(lm, prompts, tails, batch_size, description), completions, tails, rationales, answers
    ):
        shift = len(completion) - len(tail)  # the template opened `<think>` itself
        start, end = (place - shift for place in answer_span(rationale, answer))
        spans = [(start + a, start + b) for a, b in field_spans(answer) if b > a]
        categories = [scored.span(a, b) for a, b in spans[1:]]
        rows.append(
            {
                "ppl": perplexity(scored.span(start, end)),
                "ppl_title": perplexity(scored.span(*spans[0])) if spans else None,
                "ppl_category": perplexity(np.concatenate(categories)) if categories else None,
            }
        )
    return pl.DataFrame(rows, schema={"ppl": pl.Float64, "ppl_title": pl.Float64, "ppl_category": pl.Float64})


def score_rationales(
    lm: LanguageModel,
    dataset: Dataset,
    examples: pl.DataFrame,
    rationales: pl.DataFrame,
    settings: SelectionSettings,
    prompts: PromptSettings,
) -> pl.DataFrame:
    """Score every rationale by the likelihood of its example's true answer.

    Args:
        lm: the scoring model (the student before fine-tuning).
        dataset: the log.
        examples: ``example``, ``user``, ``as_of``, ``target``.
        rationales: as of :meth:`taiji.reasoning.teachers.Teacher.write`.
        settings: of the selection.
        prompts: of the student.

    Returns:
        ``rationales`` with ``ppl``, ``ppl_title``, ``ppl_category``, in the same order.
    """
    known = student_prompts(dataset, examples, prompts, lm.tokenizer).with_columns(
        pl.Series("answer", [item_line(dataset, t, prompts.title_characters) for t in examples["target"]], dtype=pl.String)
    )
    rows = rationales.join(known.select("example", "prompt", "answer"), on="example", how="left", maintain_order="left")
    if rows["prompt"].null_count():
        raise TaijiError("Rationales belong to no example.", found=", ".join(rows.filter(pl.col("prompt").is_null())["example"].head(3)))
    scores = answer_perplexities(lm, rows["prompt"].to_list(), rows["rationale"].to_list(), rows["answer"].to_list(), settings.batch_size)
    return pl.concat([rationales, scores], how="horizontal")


def calibrate(scored: pl.DataFrame, settings: SelectionSettings) -> Calibration:
    """Set the threshold on the scored rationales of calibration examples, which are used for nothing else."""
    values = scored.filter(pl.col("ppl").is_finite())
    if values.is_empty():
        raise TaijiError("There is no rationale to set the threshold on.", fix="raise calibration_prompts")
    threshold = float(np.quantile(values["ppl"].to_numpy(), settings.quantile))
    return Calibration(threshold, settings.quantile, len(values), value_hash(values.select("example", "sample").rows())[:16])


def select(scored: pl.DataFrame, calibration: Calibration, settings: SelectionSettings) -> pl.DataFrame:
    """Judge every rationale.

    Returns:
        ``scored`` with ``kept`` (bool) and ``reasons`` (list of texts; why it was rejected, empty when kept).
    """
    verdicts = []
    for row in scored.iter_rows(named=True):
        reasons = [] if settings.rule == "none" else _reasons(row, calibration)
        verdicts.append({"kept": not reasons, "reasons": reasons})
    return pl.concat([scored, pl.DataFrame(verdicts, schema={"kept": pl.Boolean, "reasons": pl.List(pl.String)})], how="horizontal")


def _reasons(row: dict[str, object], calibration: Calibration) -> list[str]:
    reasons = []
    if not str(row["rationale"]).strip():
        reasons.append("empty rationale")
    ppl = float(row["ppl"])  # type: ignore[arg-type]
    if not ppl < calibration.threshold:
        reasons.append(f"perplexity {ppl:.2f} is not below {calibration.threshold:.2f}")
    return reasons
