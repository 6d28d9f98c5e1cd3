"""Selection of rationales: keep those that make the true answer likely, by criteria that leaked answers cannot satisfy.

This is the open-ended rejection sampling before fine-tuning (ORFT) of Taiji, §3.

PPL(c) = exp(-(1/T) Σ_t log P(y_t | prompt, c, y_<t)), where c is the rationale, y are the T tokens of the true answer
inside ``<answer>``, and prompt is the *student's* prompt, which does not contain the target. The paper keeps c if
PPL(c) is below a threshold R, the median over the rationales of calibration examples. A rationale that repeats the
target has the lowest perplexity of all. The guarded rule (ours) therefore first redacts every mention of the target,
requires that the remaining text improves on an empty rationale, and rejects rationales that name the title. Rationales
that make the answer implausibly likely (PPL < 1.3 by default) go to review. Of the rationales that pass these guards,
the rule keeps those with the lowest masked perplexity (perplexity after redaction). The quantile of the paper's rule
determines how many are kept.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from taiji.core.artifacts import read_json, value_hash, write_json
from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.language.chat import continuation
from taiji.reasoning.answers import DEEPEST, answer_span, format_completion, line_spans
from taiji.reasoning.guards import find_set_mentions
from taiji.reasoning.prompts import opened, student_prompts, true_answers, true_items
from taiji.reasoning.settings import PromptSettings, SelectionSettings
from taiji.reasoning.teachers import TAUGHT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from taiji.language.causal_lm import LanguageModel

VERDICT: dict[str, Any] = {"verdict": pl.String, "kept": pl.Boolean, "reasons": pl.List(pl.String)}
LEFT_OUT = {
    "cut": "cut at the length limit",
    "filtered": "stopped by a content filter",
    "refused": "refused by the teacher",
    "tools": "a tool call instead of a rationale",
    "empty": "empty rationale",
}
"""Reason not to keep an incomplete rationale, by its ending (:data:`taiji.reasoning.chat_reply.Ending`)."""
ORDERS = 2
"""Number of random orders in which a set is scored."""
SCORES = {"ppl": pl.Float64, "ppl_values": pl.Float64, "ppl_title": pl.Float64, "ppl_category": pl.Float64}


@dataclass(frozen=True)
class Calibration:
    """Fixed threshold of a selection rule.

    Attributes:
        threshold: R. A rationale is kept only if its ``measure`` lies below R.
        measure: ``ppl`` (plain rule) or ``ppl_masked`` (guarded rule).
        quantile: share of the calibration rationales to keep.
        rationales: number of rationales from which the threshold was computed.
        fingerprint: hash of the calibration examples and samples.
    """

    threshold: float
    measure: Literal["ppl", "ppl_masked"]
    quantile: float
    rationales: int
    fingerprint: str

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration that :meth:`save` wrote."""
        return cls(**read_json(path))


def answer_perplexities(
    lm: LanguageModel,
    prompts: list[str],
    rationales: list[str],
    answers: list[str],
    batch_size: int,
    description: str = "Scoring rationales",
) -> pl.DataFrame:
    """Return each answer's perplexity after its prompt and rationale. The intents of a set are scored in the given
    order.

    Args:
        lm: the scoring model.
        prompts: (B,) rendered student prompts, without prefill.
        rationales: (B,) rationales; each may be empty.
        answers: (B,) texts from ``item_line``, or from ``format_set`` for several.
        batch_size: texts per forward pass.
        description: label of the progress display.

    Returns:
        B rows. ``ppl``: over the whole answer text inside the tags, including labels, as in the paper. The other
        columns exclude the labels, which would dominate: ``ppl_title`` over the titles, ``ppl_category`` over the
        category values (null if there are none), and ``ppl_values`` over both.
    """
    from taiji.language.score import perplexity, score_completions

    completions = [format_completion(r, a) for r, a in zip(rationales, answers, strict=True)]
    begun = [opened(prompt) for prompt in prompts]  # as in generation
    tails = [continuation(p, c) for p, c in zip(begun, completions, strict=True)]
    # Equal texts (a rationale without mentions and its redacted form) are scored once.
    pairs = list(dict.fromkeys(zip(begun, tails)))
    place = {pair: number for number, pair in enumerate(pairs)}
    scores = score_completions(lm, [p for p, _ in pairs], [t for _, t in pairs], batch_size, description)
    rows = []
    for prompt, completion, tail, rationale, answer in zip(begun, completions, tails, rationales, answers):
        scored = scores[place[prompt, tail]]
        shift = len(completion) - len(tail)  # the prompt already contains the `<think>`
        start, end = (position - shift for position in answer_span(rationale, answer))
        lines = [[(start + a, start + b) for a, b in spans] for spans in line_spans(answer, DEEPEST)]
        title = np.concatenate([scored.span(*spans[0]) for spans in lines])
        categories = [scored.span(a, b) for spans in lines for a, b in spans[1:] if b > a]
        rows.append(
            {
                "ppl": perplexity(scored.span(start, end)),
                "ppl_values": perplexity(np.concatenate([title, *categories])),
                "ppl_title": perplexity(title),
                "ppl_category": perplexity(np.concatenate(categories)) if categories else None,
            }
        )
    return pl.DataFrame(rows, schema=SCORES)


def known_answers(
    dataset: Dataset, examples: pl.DataFrame, prompts: PromptSettings, tokenizer: PreTrainedTokenizerBase
) -> pl.DataFrame:
    """Return the student prompt and the true answer of each example.

    Returns:
        ``example``; ``prompt`` (rendered); ``answers``, texts of the true answer (a set in :data:`ORDERS` random
        orders); ``answer``, the first of these; ``title`` and ``levels`` of the target; ``items``, title and levels of
        every item that the answer names.
    """
    texts = true_answers(dataset, examples, prompts, ORDERS)
    named = dataset.items.select("title", *dataset.levels)
    items = [
        [{"title": title, "levels": [level or "" for level in levels]} for title, *levels in named[chosen].iter_rows()]
        for chosen in true_items(examples, prompts)
    ]
    targets = [{"title": row[0], "levels": [x or "" for x in row[1:]]} for row in named[examples["target"]].iter_rows()]
    return student_prompts(dataset, examples, prompts, tokenizer).with_columns(
        pl.Series("answer", [row[0] for row in texts], dtype=pl.String),
        pl.Series("answers", texts, dtype=pl.List(pl.String)),
        pl.Series("title", [target["title"] for target in targets], dtype=pl.String),
        pl.Series("levels", [target["levels"] for target in targets], dtype=pl.List(pl.String)),
        pl.Series("items", items, dtype=pl.List(pl.Struct({"title": pl.String, "levels": pl.List(pl.String)}))),
    )


def score_rationales(
    lm: LanguageModel,
    dataset: Dataset,
    examples: pl.DataFrame,
    rationales: pl.DataFrame,
    settings: SelectionSettings,
    prompts: PromptSettings,
) -> pl.DataFrame:
    """Score every rationale by the likelihood of the true answer after this rationale.

    A set is scored in :data:`ORDERS` random orders, and its log-perplexities are averaged.

    Args:
        lm: the scoring model (the student before fine-tuning).
        dataset: the log.
        examples: ``example``, ``user``, ``as_of``, ``target`` and, where answers are sets, ``targets``.
        rationales: as returned by :meth:`taiji.reasoning.teachers.Teacher.write`.
        settings: settings of the selection.
        prompts: prompts of the student.

    Returns:
        ``rationales``, in the same order, with these columns:

        - ``ppl``, ``ppl_values``, ``ppl_title``, ``ppl_category``: see :func:`answer_perplexities`;
        - ``masked`` (the rationale with mentions of the target redacted); ``ppl_masked`` and ``ppl_values_masked``
          (after this text); ``ppl_none`` and ``ppl_values_none`` (after an empty rationale);
        - ``lift`` = log PPL_none - log PPL_masked *over the values*: how much the rationale helps without its mentions
          of the target. Labels are excluded, because a model that was not trained on the format finds them less likely
          after any rationale, which would hide the effect of the rationale;
        - ``leak_share`` = (log PPL_masked - log PPL) / (log PPL_none - log PPL) over the values: the share of the
          rationale's help that comes from its mentions of the target; null if the rationale does not help;
        - ``named`` (ways in which the title is named), ``levels_named`` (named levels that the history does not show),
          ``forbidden`` phrases.
    """
    known = known_answers(dataset, examples, prompts, lm.tokenizer)
    rows = rationales.select("example", "rationale").join(known, on="example", how="left", maintain_order="left")
    if rows["prompt"].null_count():
        raise InputError(
            "Some rationales belong to no example.",
            found=", ".join(rows.filter(pl.col("prompt").is_null())["example"].head(3)),
        )
    mentions = [
        find_set_mentions(rationale, [(item["title"], item["levels"]) for item in items], prompt)
        for rationale, items, prompt in rows.select("rationale", "items", "prompt").iter_rows()
    ]
    masked = [m.masked for m in mentions]
    orders = [list(texts) for texts in zip(*rows["answers"])] or [[]]
    # One call for the three variants, so that the engine computes their shared prefix (mainly the prompt) once.
    texts = [*rows["rationale"].to_list(), *masked, *[""] * len(rows)]
    scores = answer_perplexities(
        lm,
        rows["prompt"].to_list() * (3 * len(orders)),
        texts * len(orders),
        [answer for answers in orders for answer in answers * 3],
        settings.batch_size,
    )
    full, redacted, none = (
        _averaged([scores.slice((3 * order + part) * len(rows), len(rows)) for order in range(len(orders))])
        for part in range(3)
    )
    added = pl.DataFrame(
        {
            "masked": pl.Series(masked, dtype=pl.String),
            "ppl_masked": redacted["ppl"],
            "ppl_none": none["ppl"],
            "ppl_values_masked": redacted["ppl_values"],
            "ppl_values_none": none["ppl_values"],
            "named": pl.Series([list(m.title) for m in mentions], dtype=pl.List(pl.String)),
            "levels_named": pl.Series(
                [[f"L{i}" for i, said in enumerate(m.levels, 1) if said] for m in mentions], dtype=pl.List(pl.String)
            ),
            "forbidden": pl.Series([list(m.forbidden) for m in mentions], dtype=pl.List(pl.String)),
        }
    )
    given, masked_log, none_log = (pl.col(f"ppl_values{part}").log() for part in ("", "_masked", "_none"))
    share = (masked_log - given) / (none_log - given)
    return pl.concat([rationales, full, added], how="horizontal").with_columns(
        lift=none_log - masked_log,
        leak_share=pl.when((none_log - given > 1e-6) & share.is_finite()).then(
            share
        ),  # is_finite: polars treats NaN as larger than any number
    )


def _averaged(scores: list[pl.DataFrame]) -> pl.DataFrame:
    """Return, per row, the geometric mean of the perplexities over the random orders of a set."""
    if len(scores) == 1:
        return scores[0]
    mean = [
        (pl.sum_horizontal(*(frame[name].log() for frame in scores), ignore_nulls=False) / len(scores))
        .exp()
        .alias(name)
        for name in SCORES
    ]
    return scores[0].select(mean)


def calibrate(scored: pl.DataFrame, settings: SelectionSettings) -> Calibration:
    """Return the threshold computed from the scored rationales of calibration examples, which serve no other purpose.

    The threshold of the plain rule is the quantile of the perplexities, as in the paper. The guarded rule takes the
    quantile of the masked perplexities, and counts the rationales below this quantile. Its threshold is then set so
    that *the same number* of rationales that pass every guard lies below the threshold (all of them, if fewer pass).
    The guards thus decide which rationales are kept, and the threshold decides how many.

    Raises:
        InputError: no rationale has a text and a finite perplexity.
    """
    measure: Literal["ppl", "ppl_masked"] = "ppl_masked" if settings.rule == "guarded" else "ppl"
    values = scored.filter(pl.col(measure).is_finite() & (pl.col("rationale") != ""))
    if values.is_empty():
        raise InputError(
            "There are no rationales from which to set the threshold.",
            fix="raise size.calibration_prompts; if rationales were cut, raise reasoning.teacher.max_new_tokens",
        )
    threshold = float(np.quantile(values[measure].to_numpy(), settings.quantile))
    if settings.rule == "guarded":
        wanted = int((values[measure] < threshold).sum())
        passing = sorted(row[measure] for row in values.iter_rows(named=True) if not _guards(row, settings))
        if passing:  # the perplexity of the first rationale that is not kept, or just above that of the last one kept
            threshold = passing[wanted] if wanted < len(passing) else float(np.nextafter(passing[-1], np.inf))
    return Calibration(
        threshold, measure, settings.quantile, len(values), value_hash(values.select("example", "sample").rows())[:16]
    )


def select(scored: pl.DataFrame, calibration: Calibration, settings: SelectionSettings) -> pl.DataFrame:
    """Add the verdict of each rationale.

    Returns:
        ``scored`` with ``verdict`` (``keep``, ``review`` or ``reject``), ``kept`` (True for ``keep``) and ``reasons``
        (texts that say why a rationale was not kept). Incomplete rationales are rejected under every rule.
    """
    rules = {
        "none": lambda row: [],
        "plain": lambda row: _plain(row, calibration),
        "guarded": lambda row: _guarded(row, calibration, settings),
    }
    verdicts = []
    for row in scored.iter_rows(named=True):
        reasons = _unusable(row) or rules[settings.rule](row)
        # An implausibly low perplexity is the only finding that a human reviewer may overrule.
        verdict = "keep" if not reasons else "review" if all(r.startswith("review") for r in reasons) else "reject"
        verdicts.append({"verdict": verdict, "kept": verdict == "keep", "reasons": reasons})
    return pl.concat([scored, pl.DataFrame(verdicts, schema=VERDICT)], how="horizontal")


def count_reasons(verdicts: pl.DataFrame) -> dict[str, int]:
    """Count the rationales per reason, most frequent first. The part of a reason in parentheses is ignored."""
    kinds = verdicts["reasons"].explode().drop_nulls().str.split(" (").list.first()
    return dict(
        kinds.value_counts(sort=True, name="count").sort("count", "reasons", descending=[True, False]).iter_rows()
    )


def _unusable(row: dict[str, Any]) -> list[str]:
    """Return the reason why a rationale is incomplete; empty if it is complete. No rule keeps incomplete rationales."""
    ended = row.get("ended") or "whole"  # third-party teachers may not report the ending
    return [] if ended in TAUGHT else [LEFT_OUT.get(ended, ended)]


def _plain(row: dict[str, Any], calibration: Calibration) -> list[str]:
    """Return the reasons not to keep a rationale under the paper's rule; empty if it is kept."""
    reasons = [] if row["rationale"].strip() else ["empty rationale"]
    if not row["ppl"] < calibration.threshold:
        reasons.append(f"perplexity not below the threshold ({row['ppl']:.2f}, threshold {calibration.threshold:.2f})")
    return reasons


def _guarded(row: dict[str, Any], calibration: Calibration, settings: SelectionSettings) -> list[str]:
    """Return the reasons not to keep a rationale under the guarded rule (ours); empty if it is kept.

    The reasons are those of the guards, and a masked perplexity (which leaks cannot lower) above the threshold.
    """
    reasons = _guards(row, settings)
    if not row["ppl_masked"] < calibration.threshold:
        reasons.append(
            f"masked perplexity not below the threshold ({row['ppl_masked']:.2f}, threshold {calibration.threshold:.2f})"
        )
    return reasons


def _guards(row: dict[str, Any], settings: SelectionSettings) -> list[str]:
    """Return the reasons against a rationale that do not depend on the threshold."""
    reasons = [] if row["rationale"].strip() else ["empty rationale"]
    if row["named"]:
        reasons.append(f"names the item ({', '.join(row['named'])})")
    if row["forbidden"]:
        reasons.append(f"refers to the answer ({', '.join(row['forbidden'])})")
    if not row["lift"] > 0:
        reasons.append(
            f"no lift over an empty rationale (perplexity of title and categories: {math.exp(-row['lift']):.2f} times as high)"
        )
    if row["ppl"] < settings.review_below:
        reasons.append(f"review: too good to be true (perplexity {row['ppl']:.2f} is below {settings.review_below})")
    deep = [level for level in row["levels_named"] if level not in ("L1", "L2")]
    if deep and row["leak_share"] is not None and row["leak_share"] > settings.most_leak_share:
        reasons.append(f"relies on naming {', '.join(deep)} (leak share {row['leak_share']:.2f})")
    return reasons
