"""Does the guarded selection of rationales reject rationales that leak the answer, and keep the others?

A *rationale* is a teacher's text that argues for the user's next item; a student is then trained on the selected ones.
The rule-based writer writes rationales that name only titles of the history. Then the title of the true item is planted
in a fifth of them: word for word, with a spelling mistake, with a word left out, or in the middle of other words. The
rest is ``clean``. Two rules select among the same rationales of the same examples:

- ``plain`` (ORFT in the paper, arXiv 2606.03866): keep a rationale if the perplexity of the true answer after it is
  below a threshold, which is the median over the rationales of other examples. This rule is expected to prefer planted
  rationales;
- ``guarded``: reject rationales that name the title of the true item, and mask all other mentions of the item. Keep a
  rationale if it still makes the answer more likely, and the answer's perplexity is below a threshold of this rule.
  That threshold is set so that both rules keep equally many of the other examples' rationales.

The guarded rule must reject at least 95 % of the planted rationales, and may reject at most 10 percentage points more
of the clean ones than the plain rule. The test is run with a writer that sees the answer and, in a full run, also with
one that does not (``writer:blind``). The first one concludes with the category of the true item, as a teacher that sees
the answer should (RUPR in the paper); the second one often names a wrong category. With ``--answer set``, the true
answer is the set of the user's next items. The planted title then belongs to a random item of the set, among those that
the student's prompt does not show; the limits are the same.

The audit then measures rationales that were written with the answer in view, by the rule-based writer and, in a full
run, by the default language model. It has no checks. ``control`` is the mean log-perplexity of the answer, after the
rationale (``own``) and after other texts in its place (the answer itself, another user's rationale, the rationale's
words shuffled, no text). ``decoys`` are other items of the same category, which good reasoning also makes more likely.
``blind gap`` is the mean lift of these rationales (by how much they lower the log-perplexity of the answer) minus the
mean lift of rationales that the student wrote without seeing the answer.

Columns: ``what`` names the test and the writer, ``rationales`` the group of rationales, and ``n`` is the number of
rationales in the group. ``found`` is the share in which the lexical guards find a title or a forbidden phrase, and
``kept`` is the share that a rule keeps. ``median ppl`` is the median perplexity of the answer; for ``median masked
ppl``, all mentions of the item in the rationale are masked. In the rows of the audit, ``what`` names the measurement,
``rationales`` the writer, and ``value`` is the result, with its interval.

    python -m benchmarks.leakage [--answer item] [--answer set] [--examples 120] [--data NAME] [--quick] [--json FILE]

``--answer`` (default: item) and ``--data`` (completejourney or ml-latest-small; default: both) can be repeated;
``--examples`` is the number of examples on which the rules are compared. ``TAIJI_BENCHMARK_PARTS`` (default
``lexical,leaks,blind,controls``) chooses parts: the lexical guards alone, the two rules with the first and with the
second writer, and the audit. Finished parts are kept in ``$TAIJI_BENCHMARK_WORK``. Results:
``benchmarks/results/leakage.json``, ``leakage_set.json`` and ``leakage_lexical.json``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from benchmarks.rationale_data import available, in_parts, load, of, once, periods
from taiji.data.dataset import Dataset
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.reasoning.audit import audit_run
from taiji.reasoning.guards import find_set_mentions
from taiji.reasoning.prompts import shorten, student_prompts, true_items
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import calibrate, known_answers, score_rationales, select
from taiji.reasoning.settings import AuditSettings, PromptSettings, SelectionSettings, TeacherSettings
from taiji.reasoning.teachers import LocalTeacher

SHARE = 0.2
"""Share of the rationales with a planted title."""
WAYS = ("exact", "misspelt", "shortened", "woven in")
"""Ways of planting a title."""
Answer = Literal["item", "set"]
ANSWERS: tuple[Answer, ...] = ("item", "set")
BLOCK = 24
"""Number of examples per stored block, so that a larger run can reuse the blocks of a smaller one."""
BUDGET = 384
"""Length of the longest student prompt, in tokens."""


def prompts_of(answer: Answer) -> PromptSettings:
    """Return the settings of the prompts for an answer of one item, or of a set."""
    return PromptSettings(token_budget=BUDGET, answer=answer)


def plant(rationale: str, title: str, way: str, rng: np.random.Generator) -> str:
    """Return a rationale into which a title is planted in one of :data:`WAYS`."""
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


def titles_to_plant(dataset: Dataset, examples: pl.DataFrame, prompts: PromptSettings, tokenizer: Any) -> list[str]:
    """Return the title to plant for each example: the target's title, or the title of a random item of a set.

    A title that the student's prompt shows would leak nothing, so the item of a set is drawn among those that the
    prompt does not show. If the prompt shows all of them, the target is used.
    """
    titles = dataset.items["title"]
    if prompts.answer == "item":
        return titles.gather(examples["target"]).to_list()
    rng, chosen = np.random.default_rng(22), []
    shown = student_prompts(dataset, examples, prompts, tokenizer)["prompt"].to_list()
    for items, target, prompt in zip(true_items(examples, prompts), examples["target"], shown):
        hidden = [item for item in items if shorten(titles[item], prompts.title_characters) not in prompt]
        chosen.append(titles[int(rng.choice(hidden or [target]))])
    return chosen


def planted(examples: pl.DataFrame, titles: list[str], clean: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return ``clean`` with a title planted into a fifth of its rows; in the other rows the column ``way`` is null."""
    rng = np.random.default_rng([seed, 21])
    named = dict(zip(examples["example"], titles))
    rows = []
    for example, rationale in clean.select("example", "rationale").iter_rows():
        way = str(rng.choice(WAYS)) if rng.random() < SHARE else None
        rows.append((plant(rationale, named[example], way, rng) if way else rationale, way))
    return clean.with_columns(
        pl.Series("rationale", [r[0] for r in rows]), pl.Series("way", [r[1] for r in rows], dtype=pl.String)
    )


def measure(quick: bool, answers: Sequence[Answer] = ANSWERS[:1], size: int = 120, data: Sequence[str] = ()) -> Result:
    """Run the parts that ``TAIJI_BENCHMARK_PARTS`` names (by default all) on each data set.

    Args:
        quick: True for the smallest sizes.
        answers: forms of answers.
        size: number of evaluated examples; the thresholds come from half as many further examples.
        data: names of the data sets; empty for all that are available.
    """
    result = Result()
    wanted = os.environ.get("TAIJI_BENCHMARK_PARTS", "lexical,leaks,blind,controls").split(",")
    lm = load_language_model()
    count, calibrating = (16, 6) if quick else (max(size, 120), max(size // 2, 60))
    rationales = 2 if quick else 3
    for answer in answers:
        prompts = prompts_of(answer)
        for name in (name for name in available(quick) if not data or name in data):
            dataset = load(name)
            examples, _ = periods(dataset, count + calibrating, 1, seed=0, prompts=prompts)
            order = np.random.default_rng(5).permutation(len(examples))
            for_threshold, judged = examples[order[:calibrating].tolist()], examples[order[calibrating:].tolist()]
            subject = Subject(name, answer, dataset, lm, prompts)
            examples = pl.concat([for_threshold, judged])
            parts = for_threshold.head(calibrating if quick else size // 2), judged.head(size)
            for in_view in (True,) if quick else (True, False):
                writer, texts = texts_of(subject, examples, rationales, in_view)
                if "lexical" in wanted:
                    lexical(result, subject, examples, writer, texts)
                if ("leaks" if in_view else "blind") in wanted:
                    plant_and_judge(result, subject, *parts, writer, texts)
            if "controls" in wanted:
                controls(result, subject, judged[: 4 if quick else min(32, size)], quick)
    return result


@dataclass(frozen=True)
class Subject:
    """A data set with the form of its answers.

    Attributes:
        name: name of the data set.
        answer: one item, or a set.
        dataset, lm, prompts: data, language model and prompt settings for scoring.
    """

    name: str
    answer: Answer
    dataset: Dataset
    lm: LanguageModel
    prompts: PromptSettings

    def row(self, what: str) -> dict[str, Any]:
        """Return the first columns of a row."""
        return {"data": self.name, "answer": self.answer, "what": what}

    @property
    def label(self) -> str:
        """Name in checks and in the keys of stored parts."""
        return self.name if self.answer == "item" else f"{self.name}, sets"

    def scored(self, examples: pl.DataFrame, rationales: pl.DataFrame) -> pl.DataFrame:
        """Return the rationales with their perplexities, and with the mean CPU seconds per rationale, ``cpu_s``."""
        start = time.process_time()
        found = score_rationales(self.lm, self.dataset, examples, rationales, SelectionSettings(), self.prompts)
        return found.with_columns(cpu_s=pl.lit((time.process_time() - start) / max(len(found), 1)))


def texts_of(subject: Subject, examples: pl.DataFrame, rationales: int, in_view: bool) -> tuple[str, pl.DataFrame]:
    """Return the name of the rule-based writer and its rationales, with a title planted into a fifth of them."""
    writer = RuleWriter(subject.prompts, answer_in_view=in_view)
    titles = titles_to_plant(subject.dataset, examples, subject.prompts, subject.lm.tokenizer)
    clean = writer.write(subject.dataset, examples, rationales, 0)
    return writer.name, planted(examples, titles, clean, seed=0)


def lexical(result: Result, subject: Subject, examples: pl.DataFrame, writer: str, texts: pl.DataFrame) -> None:
    """Add the share of planted and of clean rationales in which the lexical guards find a title or a forbidden phrase.
    These guards need no language model."""
    known = known_answers(subject.dataset, examples, subject.prompts, subject.lm.tokenizer)
    rows = texts.join(known.select("example", "prompt", "items"), on="example", how="left", maintain_order="left")
    found = []
    for text, prompt, items in rows.select("rationale", "prompt", "items").iter_rows():
        mentions = find_set_mentions(text, [(item["title"], item["levels"]) for item in items], prompt)
        found.append(bool(mentions.title or mentions.forbidden))
    for group, of_group in (("planted", pl.col("way").is_not_null()), ("clean", pl.col("way").is_null())):
        shares = rows.with_columns(found=pl.Series(found)).filter(of_group)["found"].to_numpy()
        result.rows.append(
            {**subject.row(f"lexical guards, {writer}"), "rationales": group, "n": len(shares), "found": float(shares.mean())}
        )  # fmt: skip


def plant_and_judge(
    result: Result,
    subject: Subject,
    for_threshold: pl.DataFrame,
    judged: pl.DataFrame,
    writer: str,
    texts: pl.DataFrame,
) -> None:
    """Select among planted and clean rationales by both rules, and add the rows and checks of one writer.

    Args:
        result: result to which rows and checks are added.
        subject: data set and form of the answers.
        for_threshold: examples that set the thresholds.
        judged: examples on which the rules are compared.
        writer: name of the writer.
        texts: rationales of all these examples.
    """
    blocks = [part.slice(at, BLOCK) for part in (for_threshold, judged) for at in range(0, len(part), BLOCK)]
    scored = pl.concat(
        in_parts(
            ["leaks", subject.label, writer, len(texts)], block, lambda part: subject.scored(part, of(texts, part))
        )
        for block in blocks
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
                    **subject.row(f"planted leaks, {writer}"), "rule": rule, "rationales": group, "n": len(rows), "kept": kept[rule, group],
                    "median ppl": float(rows["ppl"].median()), "median masked ppl": float(rows["ppl_masked"].median()),
                }
            )  # fmt: skip
    result.rows.append(
        {**subject.row(f"planted leaks, {writer}"), "n": len(scored), "cpu_minutes": float(scored["cpu_s"].sum()) / 60}
    )
    result.so_far()
    label = f"{subject.label}, {writer}"
    result.at_least(f"{label}: planted leaks rejected by the guarded rule", 1 - kept["guarded", "planted"], 0.95)
    result.at_most(
        f"{label}: clean rationales rejected beyond plain ORFT", kept["plain", "clean"] - kept["guarded", "clean"], 0.10
    )
    result.at_least(f"{label}: plain ORFT prefers the leaks by", kept["plain", "planted"] - kept["plain", "clean"], 0.0)


def controls(result: Result, subject: Subject, examples: pl.DataFrame, quick: bool) -> None:
    """Audit rationales of the default model (full run only) and of the rule-based writer. There are no checks, because
    no minimum ability is required of a model."""
    lm, dataset, prompts = subject.lm, subject.dataset, subject.prompts
    settings, size = SelectionSettings(), len(examples)
    audit = AuditSettings(controls=size, decoys=1 if quick else 2, blind=0 if quick else 16)
    for teacher in (
        [RuleWriter(prompts)] if quick else [LocalTeacher(lm, TeacherSettings(), prompts), RuleWriter(prompts)]
    ):
        scored = in_parts(
            ["controls", subject.label, teacher.name],
            examples,
            lambda part, teacher=teacher: subject.scored(part, teacher.write(dataset, part, 1, 0)),
        )
        verdicts = select(scored, calibrate(scored, settings), settings)
        report = once(
            ["audit", subject.label, teacher.name, size],
            lambda verdicts=verdicts: audit_run(lm, dataset, examples, verdicts, audit, settings, prompts, 0),
        )
        common = {"data": subject.name, "answer": subject.answer, "rationales": teacher.name}
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


def main(argv: Sequence[str]) -> None:
    """Parse the arguments of this benchmark, and run it with them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--answer", action="append", choices=ANSWERS)
    parser.add_argument("--examples", type=int, default=120)
    parser.add_argument("--data", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    run(partial(measure, answers=known.answer or ANSWERS[:1], size=known.examples, data=known.data), rest)


if __name__ == "__main__":
    main(sys.argv[1:])
