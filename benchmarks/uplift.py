"""What is item text worth to a ranker on a log? The uplift ladder: rankers with more and more inputs, rung by rung.

Rungs: 0 counts (point-in-time statistics); 1 collaborative fields; 2 text match (similarity of the candidate's text to
the history's texts); then the oracle of intents (similarity to the user's true next items, an upper bound), and
negative controls: permuted texts, random vectors with the same mean and covariance, titles of noise words, another
user's history. Each rung is compared with the previous one whose fields pay off; controls and oracle are compared with
the rung on which they build (column ``against``).

Equal for all rungs: the candidates, two configurations per ranker, one of which is chosen on the latest 15 % of the
training rows, and the seeds. Positives are each user's first events with each item. Each has four negatives, items with
which other users interacted in the same time window. Training rows lie between 30 % and 80 % of the positives in time
order, test rows after them. Statistics from which the fields are computed are refreshed four times in the training
period and up to three times in the test period. Fields of a row do not use events at the row's own time. Rankers
(column ``model``): ``LightGBM``, and the built-in ``taiji``.

Columns: ``group`` of the test rows (``all``, ``cold items`` without events before the test period, ``sparse`` users
with short histories, ``both``) and its ``rows``; ``auc``; ``gain`` in AUC if the rankers of all seeds read the rung's
fields, with ``low`` and ``high``, a 95 % interval over users and seeds; ``kept_gain`` and its bounds, the same if the
ranker of a seed drops the fields unless they lower its loss on the latest training rows; ``kept``, the share of seeds
that keep them. The first row of each log has facts about it (:func:`taiji.experiments.uplift_trial.log_facts`). Checks
concern ``kept_gain``, or ``gain`` if there is none: permuted texts show no gain and cost at most .002, text match costs
at most .002, and on amazon-office it gains at least .010 (WordLlama) or .015 (MiniLM), with an interval that lies above
0.

With one ``--data`` there can be rungs of a language model, each compared with text match and with a control of its own:

- ``--knowledge FILE``, rung 3: a table of item knowledge (``knowledge.parquet`` of the stage ``item_knowledge``). If it
  is missing, the model ``--model`` writes it, part by part, so that a stopped run continues.
- ``--intents FILE``, rung 4: rows of intents (``features/taiji.parquet`` of a run, or an export). The rung ``4 intents,
  student`` uses a student of these rows; ``share`` is the share of the gain of rung 4 that the student keeps.
- ``--aligned FILE``, rung 5: rows of intents of the aligned model.

The tokens that the language model needed are reported (``tokens_per_item``, ``tokens_per_user``). Rungs of intents also
have the group ``covered``: rows whose user had intents at the time.

``--data`` is a source, a path, or the name of a folder in TAIJI_TEST_DATA. Without it: the world ``shop``, its twin
with shuffled titles (``world:shop,-shelf.text``), completejourney, and amazon-office and ml-latest-small if
TAIJI_TEST_DATA contains them. Without ``--embedder``: WordLlama, and MiniLM if it is installed. The environment
variables UPLIFT_SEEDS (2), UPLIFT_ROWS (150000) and UPLIFT_MODELS ("LightGBM taiji") set the numbers of seeds and
candidates, and the rankers.

    python -m benchmarks.uplift [--data NAME_OR_PATH]... [--embedder minilm]... [--knowledge FILE [--model NAME]]
        [--intents FILE] [--aligned FILE] [--quick] [--json benchmarks/results/uplift.json]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Result, run
from taiji.core.artifacts import write_parquet
from taiji.data.dataset import Dataset
from taiji.data.knowledge_rows import SCHEMA, read_knowledge
from taiji.data.sources import load_source
from taiji.experiments.ladder import climb
from taiji.experiments.uplift_language_rungs import (
    intent_rungs,
    knowledge_rungs,
    read_intents,
    student_rungs,
    tokens_per_row,
)
from taiji.experiments.uplift_rungs import Rung, ladder
from taiji.experiments.uplift_trial import Trial, log_facts
from taiji.language.causal_lm import load_configured
from taiji.language.item_vectors import chosen_embedder
from taiji.language.settings import LanguageSettings
from taiji.pipeline.partitions import LocalMapper, map_rows
from taiji.reasoning.item_knowledge import (
    LocalItemWriter,
    asked_once,
    for_all,
    items_to_ask,
    knowledge_metrics,
    with_times,
    write_knowledge,
)
from taiji.reasoning.knowledge_guard import flagged_stock
from taiji.reasoning.knowledge_settings import ItemKnowledgeSettings
from taiji.reasoning.settings import PromptSettings

BARS = {"wordllama": 0.010, "minilm": 0.015}
"""Smallest allowed gain of text match over collaborative fields on amazon-office, by embedder."""
LOSS = -0.002
"""Smallest allowed gain of text where no gain is required: a loss of .002 is allowed."""


@dataclass(frozen=True)
class Language:
    """Files for the rungs of a language model. Without a file, its rung is left out."""

    knowledge: str = ""
    model: str = ""
    intents: str = ""
    aligned: str = ""

    def rungs(self, dataset: Dataset, embedder: str) -> list[Rung]:
        """Return the rungs made from these files, with their controls. Each rung is compared with text match."""
        against, made = f"2 text match, {embedder}", []
        if self.knowledge:
            made += knowledge_rungs(knowledge_of(dataset, self.knowledge, self.model), embedder, against)
        for name, file in (("4 intents", self.intents), ("5 intents, aligned", self.aligned)):
            if file:
                table = read_intents(file, dataset)
                made += intent_rungs(name, table, against, tokens_per_row(file))
                if name == "4 intents":
                    made += student_rungs(table, against)
        return made


def knowledge_of(dataset: Dataset, file: str, model: str) -> pl.DataFrame:
    """Return a table of item knowledge. If the file is missing, a model writes it."""
    path = Path(file)
    if not path.is_file():
        language = LanguageSettings(**({"model": model} if model else {}))
        settings, prompts = ItemKnowledgeSettings(), PromptSettings()
        writer = LocalItemWriter(load_configured(language), settings)
        items = items_to_ask(dataset, settings, prompts, writer.version)
        folder = path.with_suffix(".parts")
        folder.mkdir(parents=True, exist_ok=True)

        def work(part: pl.DataFrame) -> pl.DataFrame:
            return write_knowledge(dataset, part, writer, prompts, 0)

        made = map_rows(LocalMapper(), lambda: work, asked_once(items), settings.chunk, folder)
        write_parquet(path, with_times(for_all(flagged_stock(made), items, dataset), dataset, 0.0))
    table = read_knowledge(path)
    if set(SCHEMA) <= set(table.columns):
        print(knowledge_metrics(table, dataset.n_items))
    return table


def measure(quick: bool, logs: list[str], embedders: list[str], language: Language = Language()) -> Result:
    """Evaluate the ladder on all logs with all embedders."""
    result = Result()
    seeds, rows = int(os.environ.get("UPLIFT_SEEDS", "2")), int(os.environ.get("UPLIFT_ROWS", "150000"))
    models = os.environ.get("UPLIFT_MODELS", "LightGBM taiji").split()
    if quick:
        logs, embedders, seeds, rows, models = ["world:shop"], embedders[:1], 1, 8_000, models[:1]
    for name in logs:
        try:
            dataset = Dataset.from_tables(load_source(name))
            trial = Trial.of(dataset, most=rows)
        except FileNotFoundError:
            print(f"{name}: skipped, it was not found")
            continue
        label = Path(name).name
        result.rows.append({"data": label, **log_facts(trial)})
        for embedder in embedders:
            rungs = [*ladder(embedder), *language.rungs(dataset, embedder)]
            first = len(result.rows)
            for row in climb(trial, rungs, models, seeds=seeds, resamples=100 if quick else 500):
                result.rows.append({"data": label, "embedder": embedder, **row})
                result.so_far()
                check(result, label, embedder, row)
            shares = student_shares(result.rows[first:])
            result.rows += [{"data": label, "embedder": embedder, **row} for row in shares]
    return result


def student_shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the share of the gain of a language model's intents that the student keeps, by ranker and group.

    The share is None if the interval of the intents' gain includes 0.
    """
    found = {(row["model"], row["group"], row["rung"]): row for row in rows if row.get("gain") is not None}
    shares = []
    for (model, group, rung), own in found.items():
        said = found.get((model, group, "4 intents"))
        if rung == "4 intents, student" and said is not None:
            shown = said.get("low") is not None and said["low"] > 0
            share = own["gain"] / said["gain"] if shown else None
            shares.append({"model": model, "rung": f"{rung}: share of the gain kept", "group": group, "share": share})
    return shares


def check(result: Result, data: str, embedder: str, row: dict[str, object]) -> None:
    """Check a row against the limits that were set beforehand."""
    gain, low = row.get("kept_gain", row.get("gain")), row.get("kept_low", row.get("low"))
    if row["group"] != "all" or not isinstance(gain, float):
        return
    name = f"{data}, {row['model']}, {row['rung']}"
    if "control, permuted" in str(row["rung"]) and isinstance(low, float):
        result.at_most(f"{name}: lower end of the gain of a control", low, 0.0)
        result.at_least(f"{name}: gain of uninformative text (a loss)", gain, LOSS)
    elif row["rung"] == f"2 text match, {embedder}":
        result.at_least(name, gain, BARS.get(embedder, 0.0) if data == "amazon-office" else LOSS)
        if data == "amazon-office" and isinstance(low, float):
            result.at_least(f"{name}: lower end", low, 0.0)


def arguments(argv: list[str]) -> tuple[list[str], list[str], Language, list[str]]:
    """Return logs, embedders, files of a language model, and the arguments that are left for the harness."""
    parser = argparse.ArgumentParser(add_help=False)
    files = ("knowledge", "model", "intents", "aligned")
    for name in files:
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--embedder", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    public = [name for name in ("amazon-office", "ml-latest-small") if found_in_public(name) != name]
    logs = known.data or ["world:shop", "world:shop,-shelf.text", *public, "completejourney"]
    logs = [found_in_public(name) for name in logs]
    found = known.embedder or [name for name in ("wordllama", "minilm") if chosen_embedder("auto") in (name, "minilm")]
    language = Language(**{name: getattr(known, name) for name in files})
    if language != Language() and len(known.data) != 1:
        parser.error("the files of a language model belong to one log: name this log with a single --data")
    return logs, found, language, rest


def found_in_public(name: str) -> str:
    """Return the path of a folder of the public data sets, or the name itself if there is no such folder."""
    path = Path(os.environ.get("TAIJI_TEST_DATA") or os.devnull) / name
    return str(path) if path.is_dir() and not Path(name).exists() else name


def main() -> None:
    """Run from the command line."""
    logs, embedders, language, rest = arguments(sys.argv[1:])
    run(partial(measure, logs=logs, embedders=embedders, language=language), rest)


if __name__ == "__main__":
    main()
