"""Leakage audit: measure how much of the rationales' help exists only because their writer saw the answer.

A rationale helps if it lowers the perplexity of the true answer. :mod:`taiji.reasoning.selection` defines and
computes lexical guards, masked perplexity, lift and leak share; the audit only summarises them. Three checks score a
sample of examples again:

- controls: replace the rationale by another user's, by its own words shuffled, by the answer itself, or by nothing;
- decoys: score other items of the target's category after the same rationale;
- blind gap: lift of the teacher's rationales minus lift of rationales written without the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import estimate
from taiji.reasoning.answers import format_set, parse
from taiji.reasoning.prompts import item_line, opened, student_prompts, true_answers, true_items
from taiji.reasoning.selection import answer_perplexities, count_reasons, known_answers, score_rationales
from taiji.reasoning.settings import AuditSettings, PromptSettings, SelectionSettings
from taiji.reasoning.teachers import rationale_frame, tidy

if TYPE_CHECKING:
    from taiji.language.causal_lm import LanguageModel

CONTROLS = ("answer", "own", "other", "shuffled")
"""Controls in the expected order of the answer's perplexity, lowest first: the answer itself, the example's own
rationale, another user's rationale, and the own rationale with its words shuffled. The control ``empty`` (no rationale)
has no expected position."""
MEASURES = ("ppl", "ppl_values", "ppl_title", "ppl_category", "ppl_masked", "ppl_none", "lift", "leak_share")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLIND_TOKENS = 64


def audit_run(
    lm: LanguageModel,
    dataset: Dataset,
    examples: pl.DataFrame,
    verdicts: pl.DataFrame,
    settings: AuditSettings,
    selection: SelectionSettings,
    prompts: PromptSettings,
    seed: int,
    *,
    level: float = 0.95,
) -> dict[str, Any]:
    """Audit the rationales of a run.

    Args:
        lm: the scoring model.
        dataset: the log.
        examples: ``example``, ``user``, ``as_of``, ``target``; they include all examples in ``verdicts``.
        verdicts: as returned by :func:`taiji.reasoning.selection.select`.
        settings: sizes of the samples.
        selection: settings that produced the scores.
        prompts: prompts of the student.
        seed: random seed of samples, shuffles, decoys and resamples.
        level: coverage of the intervals.

    Returns:
        A JSON-serialisable summary: ``rows``, ``verdicts``, ``reasons``, ``distributions`` (quantiles per measure),
        ``lexical`` (shares), ``leaking`` (shares of the rationales by the source of their help), ``preference`` (share
        of rationales that the plain rule keeps, separately for those that name their item and the others),
        ``controls`` (mean log-perplexity with intervals), ``order`` (test of the controls' expected order, per step and
        as a sentence), ``decoys``, ``blind_gap``, ``worst`` (examples to read).

    Raises:
        TaijiError: there are no rationales.
    """
    if verdicts.is_empty():
        raise InputError("There are no rationales to audit.", fix="run the rationales and selection stages first")
    whole = said(verdicts)
    sample = _sample(examples, verdicts, settings, seed)
    controls, decoys = _controls_and_decoys(lm, dataset, sample, settings, selection, prompts, seed, level)
    return {
        "rows": len(verdicts),
        "verdicts": dict(sorted(Counter(verdicts["verdict"]).items())),
        "reasons": count_reasons(verdicts),
        "distributions": {name: _quantiles(verdicts[name]) for name in MEASURES},
        "lexical": lexical_shares(whole),
        "leaking": leaking_shares(whole, selection.most_leak_share),
        "preference": plain_preference(whole, selection.quantile),
        "controls": controls,
        "order": _order(controls),
        "decoys": decoys,
        "blind_gap": _blind_gap(lm, dataset, examples, verdicts, settings, selection, prompts, seed, level),
        "worst": worst_examples(dataset, examples, verdicts, settings.worst, prompts),
    }


def said(verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return the verdicts on rationales with a text; all verdicts if none has one.

    A rationale that was cut has no text, and would otherwise count as one that names nothing.
    """
    found = verdicts.filter(pl.col("rationale") != "")
    return verdicts if found.is_empty() else found


def lexical_shares(verdicts: pl.DataFrame) -> dict[str, float]:
    """Return the share of rationales with each lexical finding."""
    shares = {
        "title": _share(verdicts["named"].list.len() > 0),
        "forbidden": _share(verdicts["forbidden"].list.len() > 0),
    }
    for kind in ("exact", "fuzzy", "subsequence", "words", "3-gram"):
        shares[f"title: {kind}"] = _share(verdicts["named"].list.contains(kind))
    named = verdicts["levels_named"].explode().drop_nulls().unique().to_list()
    for level in sorted({"L1", "L2", "L3", *named}):
        shares[f"unseen {level}"] = _share(verdicts["levels_named"].list.contains(level))
    return shares


def leaking_shares(verdicts: pl.DataFrame, most: float) -> dict[str, float]:
    """Return three shares of the rationales: those that do not help, those with a leak share of at most ``most``, and
    those with a larger one."""
    share, helps = verdicts["leak_share"].fill_null(0.0), verdicts["leak_share"].is_not_null()
    return {
        "no help": _share(~helps),
        "own help": _share(helps & (share <= most)),
        f"more than {most:.0%} of the help is mentions": _share(helps & (share > most)),
    }


def plain_preference(verdicts: pl.DataFrame, quantile: float) -> dict[str, float | None]:
    """Return the share of rationales that the plain rule keeps, separately for those that name their item and others.

    The plain rule (that of the Taiji paper) keeps rationales with a perplexity below the quantile of all
    perplexities. A share is None if no rationale belongs to its group.
    """
    known = verdicts["ppl"].is_finite()
    below = known & (verdicts["ppl"] < float(np.quantile(verdicts["ppl"].filter(known).to_numpy(), quantile)))
    named = verdicts["named"].list.len() > 0
    return {
        "kept of naming": _share(below.filter(named)) if named.any() else None,
        "kept of others": _share(below.filter(~named)) if not named.all() else None,
    }


def _share(found: pl.Series) -> float:
    return float(found.to_numpy().mean())


def worst_examples(
    dataset: Dataset, examples: pl.DataFrame, verdicts: pl.DataFrame, count: int, prompts: PromptSettings
) -> dict[str, list[dict[str, Any]]]:
    """Return three lists of rationales to read first: those with the largest leak share, those with the lowest
    perplexity, and the kept ones with the smallest lift."""
    answers = [texts[0] for texts in true_answers(dataset, examples, prompts)]
    known = pl.DataFrame({"example": examples["example"], "target": pl.Series(answers, dtype=pl.String)})
    rows = verdicts.join(known, on="example", how="left", maintain_order="left")
    lists = {
        "largest leak share": rows.filter(pl.col("leak_share").is_not_null()).sort(
            "leak_share", "example", "sample", descending=[True, False, False]
        ),
        "lowest perplexity": rows.sort("ppl", "example", "sample"),
        "kept with the least lift": rows.filter("kept").sort("lift", "example", "sample"),
    }
    return {name: [_readable(row) for row in frame.head(count).iter_rows(named=True)] for name, frame in lists.items()}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    fields = (
        "target",
        "example",
        "sample",
        "rationale",
        "masked",
        "ppl",
        "ppl_masked",
        "ppl_none",
        "leak_share",
        "lift",
        "verdict",
        "reasons",
    )
    return {name: row[name] for name in fields}


def _sample(examples: pl.DataFrame, verdicts: pl.DataFrame, settings: AuditSettings, seed: int) -> pl.DataFrame:
    """Return one non-empty rationale per example, for a random sample of examples."""
    first = (
        verdicts.filter(pl.col("rationale") != "")
        .unique("example", keep="first", maintain_order=True)
        .select("example", "rationale")
    )
    rows = first.join(examples, on="example", how="inner", maintain_order="left").sort("example")
    order = np.random.default_rng([seed, 1]).permutation(len(rows))[: settings.controls]
    return rows[np.sort(order).tolist()]


def _controls_and_decoys(
    lm: LanguageModel,
    dataset: Dataset,
    sample: pl.DataFrame,
    settings: AuditSettings,
    selection: SelectionSettings,
    prompts: PromptSettings,
    seed: int,
    level: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of the controls and of the decoys: means over examples with intervals, by name.

    Both are scored in one call, so that shared prefixes are computed only once.
    """
    known = known_answers(dataset, sample, prompts, lm.tokenizer)
    own, users = sample["rationale"].to_list(), sample["user"].to_list()
    answers = known["answer"].to_list()
    rng = np.random.default_rng([seed, 2])
    variants = {
        "answer": answers,
        "own": own,
        "other": [own[_other(users, row)] for row in range(len(own))],
        "shuffled": [" ".join(rng.permutation(text.split()).tolist()) for text in own],
        "empty": [""] * len(own),
    }
    requests = [(row, name, texts[row], answers[row]) for name, texts in variants.items() for row in range(len(own))]
    for row, items in enumerate(true_items(sample, prompts)):
        rng = np.random.default_rng([seed, 3, row])
        others = [decoys_of(dataset, target, settings.decoys, rng, items) for target in items]
        for chosen in zip_longest(*others):  # one decoy per target item; None if a category has no more items
            line = format_set(
                [item_line(dataset, item, prompts.title_characters) for item in chosen if item is not None]
            )
            requests += [(row, "decoy own", own[row], line), (row, "decoy empty", "", line)]
    sheets = known["prompt"].to_list()
    scores = answer_perplexities(
        lm,
        [sheets[row] for row, *_ in requests],
        [r[2] for r in requests],
        [r[3] for r in requests],
        selection.batch_size,
        "Scoring controls",
    )
    places = [(name, row) for row, name, _, _ in requests]
    table, values = (_per_example(places, scores[column].log().to_list(), len(own)) for column in ("ppl", "ppl_values"))
    controls = {name: _interval(table[name], settings.resamples, level, seed) for name in (*CONTROLS, "empty")}
    for one, other in pairwise(CONTROLS):
        controls[f"{other} - {one}"] = _interval(table[other] - table[one], settings.resamples, level, seed)
    lift = values["empty"] - values["own"]
    around = values["decoy empty"] - values["decoy own"] if "decoy own" in values else np.full(len(own), np.nan)
    decoys = {
        "target lift": _interval(lift, settings.resamples, level, seed),
        "neighbourhood lift": _interval(around, settings.resamples, level, seed),
        "specificity": _interval(lift - around, settings.resamples, level, seed),
    }
    return controls, decoys


def _per_example(places: list[tuple[str, int]], values: list[float], rows: int) -> dict[str, np.ndarray]:
    """Return, by name, the mean of each example's values (rows,); NaN for an example without values."""
    found: dict[str, list[list[float]]] = {name: [[] for _ in range(rows)] for name in (*CONTROLS, "empty")}
    for (name, row), value in zip(places, values):
        found.setdefault(name, [[] for _ in range(rows)])[row].append(value)
    return {name: np.array([np.mean(some) if some else np.nan for some in lists]) for name, lists in found.items()}


def _other(users: list[int], row: int) -> int:
    """Return the next example of a different user (or simply the next example if there is only one user)."""
    places = [(row + step) % len(users) for step in range(1, len(users))]
    return next((place for place in places if users[place] != users[row]), places[0] if places else row)


def decoys_of(
    dataset: Dataset, target: int, count: int, rng: np.random.Generator, true: Sequence[int] = ()
) -> list[int]:
    """Return up to ``count`` random items of the target's category, without the target and the items in ``true``.

    They are drawn from the deepest category that contains any other item; the list is empty if no category does.
    """
    for level in reversed(dataset.levels):
        value = dataset.items[level][target]
        if value is None:
            continue
        items = dataset.items.filter((pl.col(level) == value) & ~pl.col("item").is_in([target, *true]))[
            "item"
        ].to_numpy()
        if len(items):
            return [int(i) for i in rng.choice(items, min(count, len(items)), replace=False)]
    return []


def _blind_gap(
    lm: LanguageModel,
    dataset: Dataset,
    examples: pl.DataFrame,
    verdicts: pl.DataFrame,
    settings: AuditSettings,
    selection: SelectionSettings,
    prompts: PromptSettings,
    seed: int,
    level: float,
) -> dict[str, Any] | None:
    """Return three means with intervals: the lift of the teacher's rationales, the lift of rationales that the student
    writes without the answer, and the difference per example. None if ``settings.blind`` is 0."""
    if not settings.blind:
        return None
    chosen = _sample(examples, verdicts, settings.model_copy(update={"controls": settings.blind}), seed + 1)
    blind = blind_rationales(lm, dataset, chosen, prompts, seed)
    scored = score_rationales(lm, dataset, chosen, blind, selection, prompts)
    teacher = (
        verdicts.filter(pl.col("rationale") != "")
        .group_by("example")
        .agg(pl.col("lift").mean())
        .rename({"lift": "given"})
    )
    pairs = scored.join(teacher, on="example", how="inner", maintain_order="left")
    given, own = pairs["given"].to_numpy(), pairs["lift"].to_numpy()
    return {
        "teacher": _interval(given, settings.resamples, level, seed),
        "blind": _interval(own, settings.resamples, level, seed),
        "gap": _interval(given - own, settings.resamples, level, seed),
    }


def blind_rationales(
    lm: LanguageModel, dataset: Dataset, examples: pl.DataFrame, prompts: PromptSettings, seed: int
) -> pl.DataFrame:
    """Return one rationale per example, written by the student from its own prompt (without the answer)."""
    from taiji.language.generate import generate
    from taiji.language.settings import GenerationSettings

    sheets = student_prompts(dataset, examples, prompts, lm.tokenizer)["prompt"].to_list()
    sampling = GenerationSettings(max_new_tokens=BLIND_TOKENS, repetition_penalty=1.1, stop=("</think>", "<answer>"))
    texts = generate(
        lm,
        [opened(p) for p in sheets],
        settings=sampling,
        seed=seed,
        description="Writing blind rationales",
    )
    return rationale_frame(
        examples["example"].to_list(), [[tidy(parse(text).rationale)] for (text,) in texts], "student"
    )


def _order(controls: dict[str, Any]) -> dict[str, Any]:
    """Test whether the controls have the expected order, and return the results.

    Each step compares two neighbours in this order by the interval of their difference. The ``verdict`` is ``holds``
    (all intervals lie above zero), ``reversed`` (at least one lies below zero) or ``not shown`` (all other cases,
    including too few examples). ``found`` is the order of the means; it ignores the intervals.
    """
    sample = controls["own"]["n"]
    if not sample:
        return {
            "expected": list(CONTROLS),
            "found": [],
            "verdict": "not shown",
            "steps": [],
            "says": "There are no rationales for the controls.",
        }
    found = sorted(CONTROLS, key=lambda name: (controls[name]["value"], name))
    steps: list[dict[str, str]] = []
    for one, other in pairwise(CONTROLS):
        low, high = controls[f"{other} - {one}"]["low"], controls[f"{other} - {one}"]["high"]
        steps.append({"lower": one, "higher": other, "verdict": _side(low, high)})
    verdicts, expected = {step["verdict"] for step in steps}, " < ".join(CONTROLS)
    if "reversed" in verdicts:
        verdict = "reversed"
        wrong = " and ".join(f"{step['higher']} < {step['lower']}" for step in steps if step["verdict"] == verdict)
        says = f"The controls do NOT have the expected order: their perplexities show {wrong} instead of {expected}."
    elif "not shown" in verdicts:
        verdict = "not shown"
        weak = " and ".join(f"{step['lower']} < {step['higher']}" for step in steps if step["verdict"] == verdict)
        told = all(controls[f"{step['higher']} - {step['lower']}"]["low"] is not None for step in steps)
        why = f"the interval of {weak} includes zero" if told else f"too few examples for an interval of {weak}"
        says = f"The expected order of the controls is not shown with {sample} examples: {why}."
    else:
        verdict = "holds"
        says = f"The controls have the expected order: {expected}."
    return {"expected": list(CONTROLS), "found": found, "verdict": verdict, "steps": steps, "says": says}


def _side(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "not shown"
    return "holds" if low > 0 else "reversed" if high < 0 else "not shown"


def _quantiles(values: pl.Series) -> dict[str, float | None]:
    finite = values.drop_nulls().drop_nans()
    return {f"{q:g}": None if finite.is_empty() else float(np.quantile(finite.to_numpy(), q)) for q in QUANTILES}


def _interval(values: np.ndarray, resamples: int, level: float, seed: int) -> dict[str, Any]:
    """Return the mean over examples and its interval. Without an interval, its ends are None and ``reason`` says
    why."""
    mean = Ratio.of_values(np.asarray(values, dtype=np.float64), units_text="examples")
    return dict(estimate(mean, resamples=resamples, level=level, seed=seed))
