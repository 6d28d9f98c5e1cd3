"""The planted-leak test and the audit's controls.

The title of the true item is put into a fifth of otherwise clean rationales, word for word, with a spelling mistake, with a
word left out, and in other words' midst. Clean are those of the rule-based writer, which never writes the title: with the answer
in view it concludes on the right habit, as RUPR's teachers should, without it (full run) often on a wrong one. Plain ORFT
(perplexity below the median) should keep the planted ones preferentially; the guarded rule must reject at least 95 % of them and
at most 10 points more of the clean ones than plain ORFT does. Then the controls, decoys and the blind gap of the default model as
teacher, whose rationales are written with the answer in view.
"""

from __future__ import annotations

import os

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from benchmarks.rationale_data import available, in_parts, load, of, once, periods
from taiji.data.dataset import Dataset
from taiji.language.causal_lm import load_language_model
from taiji.reasoning.audit import audit_run
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import calibrate, score_rationales, select
from taiji.reasoning.settings import AuditSettings, PromptSettings, SelectionSettings, TeacherSettings
from taiji.reasoning.teachers import LocalTeacher

SHARE = 0.2
WAYS = ("exact", "misspelt", "shortened", "woven in")
PROMPTS = PromptSettings(token_budget=384)


def plant(rationale: str, title: str, way: str, rng: np.random.Generator) -> str:
    """Put a title into a rationale."""
    words = title.split()
    if way == "misspelt":
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        word = words[longest]
        place = int(rng.integers(1, max(2, len(word) - 1)))
        words[longest] = word[:place] + word[place + 1 :] if len(word) > 3 else word
    if way == "shortened" and len(words) > 3:
        words.pop(int(rng.integers(1, len(words) - 1)))
    name = " ".join(words)
    if way == "woven in":
        first, _, rest = rationale.partition(". ")
        return f"{first}, which goes well with {name}. {rest}"
    return f"{rationale} Therefore {name} fits."


def planted(dataset: Dataset, examples: pl.DataFrame, clean: pl.DataFrame, seed: int) -> pl.DataFrame:
    """``clean`` with a fifth of its rows planted; column ``way`` is null for the others."""
    rng = np.random.default_rng([seed, 21])
    titles = dict(zip(examples["example"], dataset.items["title"].gather(examples["target"])))
    rows = []
    for example, rationale in clean.select("example", "rationale").iter_rows():
        way = str(rng.choice(WAYS)) if rng.random() < SHARE else None
        rows.append((plant(rationale, titles[example], way, rng) if way else rationale, way))
    return clean.with_columns(
        pl.Series("rationale", [r[0] for r in rows]), pl.Series("way", [r[1] for r in rows], dtype=pl.String)
    )


def measure(quick: bool) -> Result:
    """See the module."""
    result = Result()
    wanted = os.environ.get("TAIJI_BENCHMARK_PARTS", "leaks,controls").split(",")
    lm = load_language_model()
    count, calibrating = (16, 6) if quick else (120, 60)
    for name in available(quick):
        dataset = load(name)
        examples, _ = periods(dataset, count + calibrating, 1, seed=0)
        order = np.random.default_rng(5).permutation(len(examples))
        for_threshold, judged = examples[order[:calibrating].tolist()], examples[order[calibrating:].tolist()]
        if "leaks" in wanted:
            for in_view in (True,) if quick else (True, False):
                plant_and_judge(result, name, lm, dataset, for_threshold, judged, 2 if quick else 3, in_view)
        if "controls" in wanted:
            controls(result, name, lm, dataset, judged[: 4 if quick else 32], quick)
    return result


def plant_and_judge(
    result: Result,
    name: str,
    lm,
    dataset: Dataset,
    for_threshold: pl.DataFrame,
    judged: pl.DataFrame,
    rationales: int,
    in_view: bool,
) -> None:
    """The planted-leak test of one data set and writer."""
    examples, writer = pl.concat([for_threshold, judged]), RuleWriter(PROMPTS, answer_in_view=in_view)
    texts = planted(dataset, examples, writer.write(dataset, examples, rationales, 0), seed=0)
    scored = in_parts(
        ["leaks", name, writer.name, rationales],
        examples,
        lambda part: score_rationales(lm, dataset, part, of(texts, part), SelectionSettings(), PROMPTS),
    )
    calibrating = pl.col("example").is_in(for_threshold["example"].to_list())
    kept: dict[tuple[str, str], float] = {}
    for rule in ("plain", "guarded"):
        settings = SelectionSettings(rule=rule)
        verdicts = select(scored.filter(~calibrating), calibrate(scored.filter(calibrating), settings), settings)
        groups = {
            "clean": pl.col("way").is_null(),
            "planted": pl.col("way").is_not_null(),
            **{f"planted, {way}": pl.col("way") == way for way in WAYS},
        }
        for group, where in groups.items():
            rows = verdicts.filter(where)
            if rows.is_empty():
                continue
            kept[rule, group] = float(rows["kept"].to_numpy().mean())
            result.rows.append(
                {
                    "data": name, "what": f"planted leaks, {writer.name}", "rule": rule, "rationales": group, "n": len(rows), "kept": kept[rule, group],
                    "median ppl": float(rows["ppl"].median()), "median masked ppl": float(rows["ppl_masked"].median()),
                }
            )  # fmt: skip
    label = f"{name}, {writer.name}"
    result.at_least(f"{label}: planted leaks rejected by the guarded rule", 1 - kept["guarded", "planted"], 0.95)
    result.at_most(
        f"{label}: clean rationales rejected beyond plain ORFT", kept["plain", "clean"] - kept["guarded", "clean"], 0.10
    )
    result.at_least(f"{label}: plain ORFT prefers the leaks by", kept["plain", "planted"] - kept["plain", "clean"], 0.0)


def controls(result: Result, name: str, lm, dataset: Dataset, examples: pl.DataFrame, quick: bool) -> None:
    """The audit of the default model's and the writer's rationales; reported, not checked: what a model is capable of is no bar."""
    settings, size = SelectionSettings(), len(examples)
    audit = AuditSettings(controls=size, decoys=1 if quick else 2, blind=0 if quick else 16)
    for teacher in (
        [RuleWriter(PROMPTS)] if quick else [LocalTeacher(lm, TeacherSettings(), PROMPTS), RuleWriter(PROMPTS)]
    ):
        scored = in_parts(
            ["controls", name, teacher.name],
            examples,
            lambda part, teacher=teacher: score_rationales(
                lm, dataset, part, teacher.write(dataset, part, 1, 0), settings, PROMPTS
            ),
        )
        verdicts = select(scored, calibrate(scored, settings), settings)
        report = once(
            ["audit", name, teacher.name, size],
            lambda verdicts=verdicts: audit_run(lm, dataset, examples, verdicts, audit, settings, PROMPTS, 0),
        )
        common = {"data": name, "rationales": teacher.name}
        for part, figures in (
            ("control", report["controls"]),
            ("decoys", report["decoys"]),
            ("blind gap", report["blind_gap"]),
        ):
            for what, figure in (figures or {}).items():
                result.rows.append({**common, "what": f"{part}: {what}", **figure})
        result.rows.append(
            {
                **common,
                "what": "order of the controls: " + " < ".join(report["order"]["found"]),
                "verdict": report["order"]["verdict"],
                "value": float(report["order"]["verdict"] == "holds"),
                "n": size,
            }
        )
        result.rows.append(
            {**common, "what": "share that names its item", "value": report["lexical"]["title"], "n": len(verdicts)}
        )
        median = verdicts["leak_share"].median()
        result.rows.append({**common, "what": "median leak share", "value": median, "n": len(verdicts)})


if __name__ == "__main__":
    run(measure)
