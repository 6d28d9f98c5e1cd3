"""Does a small fine-tuned model answer with a set of intents that is well formed, varied, and covers the user's next
items?

An *intent* is an item that the user may want next. The default model is fine-tuned for one epoch on rationales of the
rule-based writer, one for each of at most ``--rows`` prompts of an earlier period, without selection. It then answers
``--prompts`` prompts of the test period, by sampling with a repetition penalty of ``--penalty`` (1: none). For each
seed, which determines prompts, training order and samples, there are these rows, by ``what``:

- ``fine-tuning``: numbers of training ``rows``, weight ``updates`` and ``prompts``; ``cpu_minutes`` of the training and
  of the answers; ``next items``, mean number of target items; ``cut``, number of answers that the length limit cut off.
- ``well formed``: share of well-formed answers. Of these: ``intents``, number of intents; ``different intents``, number
  after near-duplicates are merged; ``redundancy``, share of the intents after the first that repeat an earlier one.
- ``coverage``: largest cosine of a next item with an intent (WordLlama's vectors), averaged over the user's next items;
  0 for a malformed answer.
- ``coverage of X`` and ``coverage minus that of X``, paired by user: X is the user's last item, the user's last three
  items, the three most popular items, another user's answer (a negative control), or the true next items (the upper
  bound).

``value``, ``low``, ``high``: mean and 95 % interval over users. Checks: all prompts are answered, the true next items
cover themselves, and in a full run at least 90 % of the answers are well formed.

The full run takes tens of minutes. The fine-tuned model, and the answers in parts of a dozen, are stored in
``TAIJI_BENCHMARK_WORK``, from which a stopped run continues. Without ``--data``: amazon-office of ``TAIJI_TEST_DATA``.
For ``set_answers.json``, the model was trained on all 643 rows that exist (``--rows 700``), for
``set_answers_210.json`` on 210.

    python -m benchmarks.set_answers [--data NAME_OR_PATH] [--prompts 200] [--rows 210] [--seed 0]... [--penalty 1.0]
        [--quick] [--json benchmarks/results/set_answers.json]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.harness import Result, run
from benchmarks.rationale_data import in_parts, load, once, periods, work_folder
from benchmarks.selection import SIZES, pretrained
from taiji.core.artifacts import value_hash
from taiji.data.dataset import Dataset
from taiji.data.item_text import item_text, item_texts
from taiji.data.sources import load_source
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.language.embed import encode_sets, load_embedder
from taiji.language.generate import write
from taiji.language.item_vectors import embedded
from taiji.language.settings import GenerationSettings
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intent_sets import coverage, merged, redundancy
from taiji.metrics.intervals import compare, estimate
from taiji.reasoning.answers import parse
from taiji.reasoning.prompts import opened, student_prompts, true_items
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.settings import PromptSettings, SFTSettings
from taiji.reasoning.sft import sft_rows, train_sft

Array = NDArray[Any]
EMBEDDER = "wordllama"
WELL_FORMED = 0.9
"""Smallest allowed share of well-formed answers of the default model."""
LAST = POPULAR = 3
"""Numbers of items in the baselines with the last and with the most popular items."""


@dataclass(frozen=True)
class Trial:
    """Log, prompts and examples of one seed.

    Attributes:
        dataset: the log.
        prompts: settings of the prompts.
        train: examples for fine-tuning.
        test: examples whose prompts are answered.
        seed: seed of training and samples.
    """

    dataset: Dataset
    prompts: PromptSettings
    train: pl.DataFrame
    test: pl.DataFrame
    seed: int

    def tuned(self, lm: LanguageModel, settings: SFTSettings) -> tuple[LanguageModel, dict[str, float]]:
        """Return the fine-tuned model, which is stored in the work folder, and the numbers of rows, updates and CPU
        minutes."""
        key = ["set answers, model", lm.version, self.train["example"].to_list(), settings.model_dump(), self.seed]
        folder = work_folder() / f"{value_hash(key)[:20]}-model"

        def train() -> dict[str, float]:
            start = time.process_time()
            said = RuleWriter(self.prompts).write(self.dataset, self.train, 1, self.seed)
            rows = sft_rows(self.dataset, self.train, said, self.prompts, lm.tokenizer)
            losses = train_sft(lm, rows, settings, folder, self.seed)
            return {"rows": len(rows), "updates": len(losses), "cpu_minutes": (time.process_time() - start) / 60}

        facts = once(key, train)
        return load_language_model(folder), facts

    def answers(self, lm: LanguageModel, settings: GenerationSettings) -> pl.DataFrame:
        """Return one completion for each test prompt, with its CPU seconds, and ``cut``: True if the length limit cut
        it off."""

        def work(part: pl.DataFrame) -> pl.DataFrame:
            start = time.process_time()
            prompts = student_prompts(self.dataset, part, self.prompts, lm.tokenizer)["prompt"]
            written = write(lm, [opened(prompt) for prompt in prompts], settings=settings, seed=self.seed)
            return part.select("example").with_columns(
                completion=pl.Series([row[0].text for row in written], dtype=pl.String),
                cut=pl.Series([row[0].cut for row in written], dtype=pl.Boolean),
                cpu_s=pl.lit((time.process_time() - start) / len(part)),
            )

        return in_parts(["set answers", lm.version, settings.model_dump(), self.seed], self.test, work)


def judged(trial: Trial, completions: Sequence[str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the values of the answers, and the coverage of the baselines, of the control and of the upper bound, (E,)
    each."""
    dataset, most = trial.dataset, trial.prompts.most
    catalogue = embedded(EMBEDDER, item_texts(dataset))
    parsed = [parse(text, max(1, len(dataset.levels)), most) for text in completions]
    formed = np.array([answer.well_formed for answer in parsed])
    said = [answer.intents if answer.well_formed else () for answer in parsed]
    texts = [[item_text((intent.title, *intent.levels)) for intent in intents] for intents in said]
    vectors = encode_sets(load_embedder(EMBEDDER), texts, most)
    coming = _sets(catalogue, true_items(trial.test, trial.prompts))
    where_formed = np.where(formed, 1.0, np.nan)
    values = {
        "well formed": formed.astype(np.float64),
        "intents": where_formed * [len(intents) for intents in said],
        "different intents": where_formed * [len(merged(row, np.ones(len(row)))[0]) for row in vectors],
        "redundancy": where_formed * redundancy(vectors),
        "coverage": coverage(vectors, coming),
    }
    users, times = trial.test["user"].to_numpy().astype(np.int64), trial.test["as_of"].to_numpy()
    last = dataset.history.before_batch(users, times, LAST)[0]
    known = dataset.history.items[dataset.history.times < times.min()]
    popular = np.argsort(-np.bincount(known, minlength=dataset.n_items), kind="stable")[:POPULAR]
    against = {
        "the user's last item": _sets(catalogue, [row[:1] for row in last]),
        f"the last {LAST} items": _sets(catalogue, last),
        f"the {POPULAR} most popular items": _sets(catalogue, [popular] * len(users)),
        "control: another user's answer": vectors[_others(users)],
        "upper bound: the true next items": coming,
    }
    return values, {name: coverage(sets, coming) for name, sets in against.items()}


def _others(users: Array) -> Array:
    """Return, for each row, the index of the next row of another user (E,); its own index if there is none."""
    own = np.arange(len(users))
    found = own
    for step in range(1, len(users)):
        found = np.where(users[found] == users, np.roll(own, -step), found)
    return np.where(users[found] == users, own, found)


def _sets(catalogue: Array, items: Sequence[Sequence[int]] | Array) -> Array:
    """Return the vectors of sets of items (E, m, d), zero where an item is missing (−1)."""
    found = np.zeros((len(items), max(map(len, items)), catalogue.shape[1]), np.float32)
    for row, chosen in enumerate(items):
        there = [int(item) for item in chosen if item >= 0]
        found[row, : len(there)] = catalogue[there]
    return found


def measure(quick: bool, data: str, asked: int, rows: int, seeds: Sequence[int], penalty: float) -> Result:
    """Fine-tune and evaluate with each seed."""
    result = Result()
    if quick:
        asked, rows, seeds = 16, 16, seeds[:1]
    dataset = load("shop") if quick else Dataset.from_tables(load_source(data))
    prompts = PromptSettings(answer="set", token_budget=384 if quick else 448)
    settings = SFTSettings(gradient_accumulation=1)
    generation = GenerationSettings(max_new_tokens=60 if quick else 300, repetition_penalty=penalty)
    if quick:
        settings = settings.model_copy(update={"lora_rank": 0, "learning_rate": 5e-4})
        lm = pretrained(dataset, SIZES["quick"], prompts, work_folder() / "set-student")
    else:
        lm = load_language_model()
    for seed in seeds:
        train, test = periods(dataset, rows, asked, seed, prompts)
        trial = Trial(dataset, prompts, train, test, seed)
        tuned, facts = trial.tuned(lm, settings)
        told = trial.answers(tuned, generation)
        common = {"data": dataset.name, "seed": seed, "penalty": penalty}
        result.rows.append(
            {**common, "what": "fine-tuning", **facts, "prompts": len(test), "next items": float(test["targets"].list.len().mean())}
            | {"cut": int(told["cut"].sum()), "cpu_minutes of answers": float(told["cpu_s"].sum()) / 60}
        )  # fmt: skip
        formed = tell(result, common, trial, told["completion"].to_list())
        result.so_far()
        if not quick:
            result.at_least(f"{dataset.name}, seed {seed}: share of well-formed answers", formed, WELL_FORMED)
    return result


def tell(result: Result, common: dict[str, Any], trial: Trial, completions: Sequence[str]) -> float:
    """Add the rows and checks of one seed, and return the share of well-formed answers."""
    values, against = judged(trial, completions)
    users, codes = np.unique(trial.test["user"].to_numpy(), return_inverse=True)

    def ratio(found: Array, proportion: bool = False) -> Ratio:
        return Ratio.of_rows(codes, found, len(users), proportion=proportion)

    for name, found in values.items():
        if np.isfinite(found).any():
            result.rows.append({**common, "what": name, **estimate(ratio(found, name == "well formed"))})
    for name, found in against.items():
        result.rows.append({**common, "what": f"coverage of {name}", **estimate(ratio(found))})
        gap = compare(ratio(values["coverage"]), ratio(found))
        result.rows.append({**common, "what": f"coverage minus that of {name}", **gap})
    label = f"{common['data']}, seed {common['seed']}"
    result.at_least(f"{label}: prompts answered", len(completions), len(trial.test))
    bound = against["upper bound: the true next items"]
    result.at_least(f"{label}: the true next items cover themselves", float(bound.min()), 1 - 1e-6)
    return float(values["well formed"].mean())


def main(argv: Sequence[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    folder = os.environ.get("TAIJI_TEST_DATA", "")
    parser.add_argument("--data", default=str(Path(folder) / "amazon-office"))
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--rows", type=int, default=210)
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--penalty", type=float, default=1.0)
    known, rest = parser.parse_known_args(argv)
    action = partial(
        measure, data=known.data, asked=known.prompts, rows=known.rows, seeds=known.seed or [0], penalty=known.penalty
    )
    run(action, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
