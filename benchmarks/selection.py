"""Does a student answer held-out examples better if it is fine-tuned on selected rationales?

A *rationale* is a text that explains a user's next item. A *student*, a language model, is fine-tuned on the rationales
that a *filter* keeps. On examples of the test period it then writes its own rationale and an answer.

Filters, the rows by ``arm``: ``plain`` keeps rationales that make the true answer likely (low perplexity, the rule of
the paper, arXiv 2606.03866); ``guarded`` masks mentions of the answer before it computes the perplexity, requires a
gain over an empty rationale, and rejects leaks, which are rationales that name the item; ``none`` keeps all; ``random``
keeps as many as ``guarded``, by chance; ``answer only`` uses the examples of ``random`` without any rationale. ``before
fine-tuning`` is the student itself; further rows are baselines without a language model. ``, without thinking`` marks
answers without a rationale of the student's own.

Equal for all arms of an experiment: the student, the rationales to choose from, the training settings, the test
examples, and the seeds. The calibration examples, 30 % of those for training, only set the filters' thresholds.
Teachers, who write the rationales: the rule-based writer (``writer``), the same with titles planted into a fifth of its
rationales (``writer with leaks``), and, for the default student on completejourney, the default model. Students:
``tiny``, a small model pretrained on examples of the same part of the log as the training examples (three seeds), and
``default``, the default model (full run only; one seed, because two cores allow no more).

Columns: ``kept``, number of training rows; ``kept that name the item``, the share of these rows whose rationale does
so; ``log-perplexity`` of the true item's title and categories after the student's rationale (lower is better, and
informative even if hardly any answer is right); accuracy of the category levels ``category_l1`` to ``category_l3``;
``hit@50`` and ``hit@100`` of the true item; ``format``, share of well-formed answers. ``low`` and ``high`` are 95 %
intervals over users. ``… against plain`` lists the paired difference from ``plain`` and its interval.

The gain of selection is measured, not checked. The checks are that every arm was trained and evaluated, that
``guarded`` keeps no leaks, and in a full run that at least half of the tiny student's answers are well formed before
fine-tuning, because a comparison would be meaningless otherwise.

A long run can be split by ``TAIJI_BENCHMARK_PARTS`` (``tiny`` or ``default``), and continues after a stop if
``TAIJI_BENCHMARK_WORK`` names a folder.

    [TAIJI_BENCHMARK_PARTS=tiny] python -m benchmarks.selection [--quick] [--json benchmarks/results/selection.json]
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from benchmarks.leakage import planted, titles_to_plant
from benchmarks.rationale_data import available, in_parts, load, of, once, periods, work_folder
from taiji.data.dataset import Dataset
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.language.chat import continuation
from taiji.language.embed import load_embedder
from taiji.language.generate import generate
from taiji.language.settings import GenerationSettings
from taiji.language.tiny import tiny_causal_lm, tiny_tokenizer
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import compare, estimate
from taiji.reasoning.answers import THINK, parse
from taiji.reasoning.prompts import item_lines
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import answer_perplexities, calibrate, known_answers, score_rationales, select
from taiji.reasoning.settings import PromptSettings, SelectionSettings, SFTSettings, TeacherSettings
from taiji.reasoning.sft import sft_rows, train_sft
from taiji.reasoning.teachers import LocalTeacher
from taiji.reporting.answer_evaluation import evaluate_answers

ARMS = ("plain", "guarded", "none", "random", "answer only")
METRICS = ("category_l1", "category_l2", "category_l3", "hit@50", "hit@100", "format")
CALIBRATION = 0.3
FORMAT = 0.5
"""Smallest allowed share of well-formed answers of the tiny student before fine-tuning."""


@dataclass(frozen=True)
class Size:
    """Sizes of an experiment: numbers of examples, rationales per example, seeds, and tokens per answer."""

    pretrain: int
    train: int
    test: int
    rationales: int
    seeds: tuple[int, ...]
    max_new_tokens: int


SIZES = {
    "quick": Size(40, 16, 10, 1, (0,), 40),
    "tiny": Size(1200, 160, 160, 2, (0, 1, 2), 96),
    "default": Size(0, 28, 24, 2, (0,), 110),
}


def measure(quick: bool) -> Result:
    """Run the chosen students on every available data set."""
    result = Result()
    wanted = os.environ.get("TAIJI_BENCHMARK_PARTS", "tiny,default").split(",")
    for name in available(quick):
        dataset = load(name)
        if quick or "tiny" in wanted:
            size = SIZES["quick" if quick else "tiny"]
            prompts = PromptSettings(token_budget=320, history_limit=8)
            folder = work_folder() / f"student-{name}"
            student = (
                load_language_model(folder, dtype="float32")
                if folder.exists()
                else pretrained(dataset, size, prompts, folder)
            )
            for teacher in ("writer",) if quick else ("writer", "writer with leaks"):
                experiment(
                    result,
                    name,
                    dataset,
                    "tiny",
                    student,
                    teacher,
                    size,
                    prompts,
                    SFTSettings(lora_rank=0, learning_rate=5e-4, batch_size=8, gradient_accumulation=1),
                )
        if not quick and "default" in wanted:
            teacher = "default model" if name == "completejourney" else "writer"
            experiment(
                result,
                name,
                dataset,
                "default",
                load_language_model(),
                teacher,
                SIZES["default"],
                PromptSettings(token_budget=320),
                SFTSettings(learning_rate=5e-4),
            )
    return result


def pretrained(dataset: Dataset, size: Size, prompts: PromptSettings, folder: Path) -> LanguageModel:
    """Return a tiny student that has learnt the language of the task, from examples of the LLM period: rationales that
    were written without knowing the answer, and true answers."""
    lines = item_lines(dataset)
    rng = np.random.default_rng(3)
    corpus = [lines[i] for i in rng.permutation(len(lines))[:3000]]
    examples, _ = periods(dataset, size.pretrain, 1, seed=99, prompts=prompts)
    writer = RuleWriter(prompts, answer_in_view=False).write(dataset, examples, 1, 99)
    tokenizer = tiny_tokenizer([*corpus, *writer["rationale"].to_list()], vocabulary=2048)
    lm = LanguageModel(*tiny_causal_lm(tokenizer, hidden=128, layers=3, heads=4), "tiny")
    rows = sft_rows(dataset, examples, writer, prompts, lm.tokenizer)
    settings = SFTSettings(lora_rank=0, learning_rate=3e-3, epochs=4, batch_size=8, gradient_accumulation=1)
    train_sft(lm, rows, settings, folder, seed=0)
    return load_language_model(folder, dtype="float32")


def experiment(
    result: Result,
    name: str,
    dataset: Dataset,
    student: str,
    lm: LanguageModel,
    teacher: str,
    size: Size,
    prompts: PromptSettings,
    sft: SFTSettings,
) -> None:
    """Train and evaluate all arms with all seeds, for one student, teacher and data set."""
    completions: dict[str, list[str]] = {}
    surprise: dict[str, list[float]] = {}
    judged: list[pl.DataFrame] = []
    kept: dict[str, list[int]] = {arm: [] for arm in ARMS}
    leaks: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in size.seeds:
        train, test = periods(dataset, size.train, size.test, seed=seed)
        judged.append(test)
        scored = written_and_scored(name, dataset, train, lm, student, teacher, size, prompts, seed)
        arms = chosen(train, scored, seed)
        for arm, rows in arms.items():
            kept[arm].append(len(rows))
            leaks[arm].append(
                float((rows["named"].list.len() > 0).to_numpy().mean()) if len(rows) and arm != "answer only" else 0.0
            )
            key = ["arm", name, student, teacher, arm, seed, len(train), len(test), len(rows)]

            def train_and_answer(
                arm: str = arm,
                rows: pl.DataFrame = rows,
                seed: int = seed,
                train: pl.DataFrame = train,
                test: pl.DataFrame = test,
            ) -> dict:
                with tempfile.TemporaryDirectory() as folder:
                    train_sft(lm, sft_rows(dataset, train, rows, prompts, lm.tokenizer), sft, Path(folder) / "m", seed)
                    tuned = load_language_model(Path(folder) / "m", dtype="float32" if student == "tiny" else "auto")
                    return answers(tuned, dataset, test, prompts, size, seed, thinks=arm != "answer only")

            for mode, found in once(key, train_and_answer).items():
                completions.setdefault(f"{arm}{mode}", []).extend(found["texts"])
                surprise.setdefault(f"{arm}{mode}", []).extend(found["surprise"])
        base = once(
            ["base", name, student, seed, len(test)],
            lambda test=test, seed=seed: answers(lm, dataset, test, prompts, size, seed, thinks=True),
        )
        for mode, found in base.items():
            completions.setdefault(f"before fine-tuning{mode}", []).extend(found["texts"])
            surprise.setdefault(f"before fine-tuning{mode}", []).extend(found["surprise"])
    users = pl.concat(judged)["user"].to_numpy()
    likelihood = {arm: Ratio.of_rows(users, np.array(values), int(users.max()) + 1) for arm, values in surprise.items()}
    figures = evaluate_answers(dataset, pl.concat(judged), completions, load_embedder(), seed=0)
    for arm in [*completions, *sorted({f["model"] for f in figures if f["kind"] == "baseline"})]:
        row: dict[str, object] = {
            "data": name,
            "student": student,
            "teacher": teacher,
            "seeds": len(size.seeds),
            "arm": arm,
        }
        if arm in kept:
            row |= {"kept": float(np.mean(kept[arm])), "kept that name the item": float(np.mean(leaks[arm]))}
        if arm in surprise:
            row |= {
                "log-perplexity": (found := estimate(likelihood[arm]))["value"],
                "log-perplexity low": found["low"],
                "log-perplexity high": found["high"],
            }
            row["log-perplexity against plain"] = [
                compare(likelihood[arm], likelihood["plain"])[k] for k in ("value", "low", "high")
            ]
        for figure in figures:
            if figure["model"] == arm and figure["metric"] in METRICS:
                row |= {
                    figure["metric"]: figure["value"],
                    f"{figure['metric']} low": figure["low"],
                    f"{figure['metric']} high": figure["high"],
                }
                if "difference" in figure:
                    row[f"{figure['metric']} against plain"] = [
                        figure["difference"][k] for k in ("value", "low", "high")
                    ]
        result.rows.append(row)
    label = f"{name}, {student} student, {teacher}"
    if student == "tiny" and len(size.seeds) > 1:
        ready = next(f["value"] for f in figures if (f["model"], f["metric"]) == ("before fine-tuning", "format"))
        result.at_least(f"{label}: well-formed answers before fine-tuning", ready, FORMAT)
    result.at_least(
        f"{label}: arms trained and evaluated", sum(len(v) == len(size.seeds) for v in kept.values()), len(ARMS)
    )
    result.at_most(
        f"{label}: share of guarded training rows that name their item", float(np.max(leaks["guarded"])), 0.0
    )


def written_and_scored(
    name: str,
    dataset: Dataset,
    train: pl.DataFrame,
    lm: LanguageModel,
    student: str,
    teacher: str,
    size: Size,
    prompts: PromptSettings,
    seed: int,
) -> pl.DataFrame:
    """Return the rationales of the teacher with their scores."""
    if teacher != "default model":
        clean = RuleWriter(prompts).write(dataset, train, size.rationales, seed)
        leaks = teacher == "writer with leaks"
        titles = titles_to_plant(dataset, train, prompts, lm.tokenizer)
        texts = planted(train, titles, clean, seed).drop("way") if leaks else clean

    def work(part: pl.DataFrame) -> pl.DataFrame:
        mine = (
            LocalTeacher(lm, TeacherSettings(), prompts).write(dataset, part, size.rationales, seed)
            if teacher == "default model"
            else of(texts, part)
        )
        return score_rationales(lm, dataset, part, mine, SelectionSettings(), prompts)

    return in_parts(["selection", name, student, teacher, seed], train, work)


def chosen(train: pl.DataFrame, scored: pl.DataFrame, seed: int) -> dict[str, pl.DataFrame]:
    """Return the rows that each filter keeps. Calibration examples only set the thresholds."""
    order = np.random.default_rng([seed, 31]).permutation(len(train))
    for_threshold = train["example"].gather(order[: max(2, round(CALIBRATION * len(train)))].tolist()).to_list()
    held = pl.col("example").is_in(for_threshold)
    arms = {}
    for rule in ("plain", "guarded", "none"):
        settings = SelectionSettings(rule=rule)
        arms[rule] = select(scored.filter(~held), calibrate(scored.filter(held), settings), settings).filter("kept")
    if arms["guarded"].is_empty():  # nothing passed: keep the best one by masked perplexity, so that the arm exists
        arms["guarded"] = arms["none"].filter(pl.col("named").list.len() == 0).sort("ppl_masked").head(1)
    rng = np.random.default_rng([seed, 32])
    arms["random"] = arms["none"][np.sort(rng.permutation(len(arms["none"]))[: len(arms["guarded"])]).tolist()]
    arms["answer only"] = arms["random"].with_columns(rationale=pl.lit(""))
    return {arm: arms[arm] for arm in ARMS}


def answers(
    lm: LanguageModel,
    dataset: Dataset,
    test: pl.DataFrame,
    prompts: PromptSettings,
    size: Size,
    seed: int,
    thinks: bool,
) -> dict[str, dict[str, list]]:
    """Return greedy completions by mode: after the model's own rationale (only if ``thinks``), and without a rationale.

    Each mode has ``texts``, and ``surprise``: the log-perplexity of the true item's title and categories after the
    rationale.
    """
    known = known_answers(dataset, test, prompts, lm.tokenizer)
    sheets, truths = known["prompt"].to_list(), known["answer"].to_list()
    settings = GenerationSettings(max_new_tokens=size.max_new_tokens, temperature=0.0, batch_size=40)
    straight = "<think></think><answer>"
    modes = {"": THINK, ", without thinking": straight} if thinks else {"": straight}
    found = {}
    for mode, opening in modes.items():
        written_texts = generate(
            lm, [p + continuation(p, opening) for p in sheets], settings=settings, seed=seed, description="Answering"
        )
        texts = [opening + text for (text,) in written_texts]
        rationales = [parse(text).rationale for text in texts]
        scores = answer_perplexities(lm, sheets, rationales, truths, batch_size=12, description="Scoring answers")
        found[mode] = {"texts": texts, "surprise": scores["ppl_values"].log().to_list()}
    return found


if __name__ == "__main__":
    run(measure)
