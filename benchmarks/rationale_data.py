"""Data sets of the benchmarks of rationales (two public logs, and a generated shop for quick runs), and the storage of
finished parts, from which a stopped run continues."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import public_data
from taiji.core.artifacts import read_json, value_hash, write_json
from taiji.data.dataset import Dataset
from taiji.data.examples import make_examples, next_sets
from taiji.data.schema import Tables
from taiji.data.settings import ExampleSettings, SplitSettings
from taiji.data.sources import load_source
from taiji.data.splits import time_split
from taiji.pipeline.partitions import LocalMapper, map_rows
from taiji.reasoning.settings import PromptSettings

ONE_ITEM = PromptSettings()
PART = 12
"""Number of examples per stored part; a resumed run skips finished parts."""
SORTS = {
    "Garden": ("Seeds", "Tools", "Pots"),
    "Kitchen": ("Knives", "Pans", "Cups"),
    "Sports": ("Balls", "Shoes", "Bands"),
    "Office": ("Pens", "Paper", "Lamps"),
    "Pets": ("Food", "Leads", "Beds"),
}
ADJECTIVES = (
    "Amber",
    "Brisk",
    "Coral",
    "Dapper",
    "Ember",
    "Fable",
    "Grove",
    "Harbour",
    "Indigo",
    "Jasper",
    "Kestrel",
    "Lunar",
    "Maple",
    "Nimbus",
    "Onyx",
    "Poppy",
)
NOUNS = ("Arrow", "Beacon", "Cascade", "Dune", "Echo", "Falcon", "Glade", "Heron", "Isle", "Juniper")


@cache
def work_folder() -> Path:
    """Return the folder of finished parts: ``$TAIJI_BENCHMARK_WORK``, or a new temporary folder.

    A run that was stopped continues from the parts in the folder that the variable names. Empty this folder after
    changes to the code.
    """
    named = os.environ.get("TAIJI_BENCHMARK_WORK")
    return Path(named) if named else Path(mkdtemp(prefix="taiji-benchmark-"))


def in_parts(key: list[Any], examples: pl.DataFrame, make: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Apply ``make`` to a dozen examples at a time, and store the result of each part."""
    say(f"{' '.join(map(str, key))}: {len(examples)} examples")
    folder = work_folder() / value_hash([key, examples["example"].to_list()])[:20]
    return map_rows(LocalMapper(), lambda: make, examples, PART, folder)


def of(texts: pl.DataFrame, part: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of ``texts`` that belong to the examples of a part."""
    return texts.filter(pl.col("example").is_in(part["example"].implode()))


def once(key: list[Any], make: Callable[[], Any]) -> Any:
    """Return the value stored under a key. If it is missing, compute it and store it as JSON."""
    path = work_folder() / f"{value_hash(key)[:20]}.json"
    if not path.exists():
        say(" ".join(map(str, key)))
        write_json(path, make())
    return read_json(path)


def say(text: str) -> None:
    """Report the progress of a long run on standard error."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def available(quick: bool) -> list[str]:
    """Return the names of the data sets that are available here."""
    if quick:
        return ["shop"]
    public = os.environ.get("TAIJI_TEST_DATA", "")
    return ["completejourney", *(["ml-latest-small"] if (Path(public) / "ml-latest-small").is_dir() else [])]


def load(name: str, seed: int = 0) -> Dataset:
    """Return a data set by name. completejourney is reduced to a sample of 400 households."""
    if name == "shop":
        return generated_shop(seed)
    if name == "completejourney":
        return Dataset.from_tables(load_source(name, seed=0, users=400, non_clicks=1))
    return Dataset.from_tables(load_source(public_data() / name))


def periods(
    dataset: Dataset, train: int, test: int, seed: int, prompts: PromptSettings = ONE_ITEM
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return examples of the LLM period (for rationales) and of the test period (for evaluation).

    If the settings ask for sets as answers, the examples also have the user's next items as target sets.
    """
    split = time_split(dataset, SplitSettings().fractions)

    def chosen(period: str, count: int) -> pl.DataFrame:
        found = make_examples(dataset, split, period, ExampleSettings(limit=count, per_user=3), seed)
        if prompts.answer == "item":
            return found
        ends = [split.interval(period)[1]] * len(found)
        return found.with_columns(next_sets(dataset, found, ends, prompts.next_items))

    return chosen("llm", train), chosen("test", test)


def generated_shop(seed: int, users: int = 120, events: int = 30) -> Dataset:
    """Return a log of users who each have one favourite category and prefer two of its three subcategories.

    Of their clicks, 80 % are drawn from these two and the others from all subcategories. Titles are random words,
    unrelated to categories.
    """
    rng = np.random.default_rng([seed, 11])
    sorts = [(l1, l2) for l1, names in SORTS.items() for l2 in names]
    names = [f"{a} {n}" for a in ADJECTIVES for n in NOUNS]
    names = [names[i] for i in rng.permutation(len(names))[:150]]
    kinds = [sorts[i % len(sorts)] for i in range(len(names))]
    items = pl.DataFrame(
        {
            "item_id": range(len(names)),
            "title": names,
            "category_l1": [l1 for l1, _ in kinds],
            "category_l2": [f"{l1} {l2}" for l1, l2 in kinds],
            "category_l3": [f"{l1} {l2} {'Large' if i % 2 else 'Small'}" for i, (l1, l2) in enumerate(kinds)],
            "price": [round(float(p), 2) for p in rng.uniform(1, 30, len(names))],
        }
    )
    rows = []
    for user in range(users):
        favourite = rng.permutation(len(SORTS))[0] * 3 + rng.permutation(3)[:2]
        for event in range(events):
            sort = int(rng.choice(favourite)) if rng.random() < 0.8 else int(rng.integers(len(sorts)))
            item = int(rng.choice(np.arange(sort, len(names), len(sorts))))
            rows.append((user, item, datetime(2025, 1, 1) + timedelta(days=event, minutes=int(rng.integers(1440))), 1))
    events_frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "click"], orient="row")
    return Dataset.from_tables(Tables(items, pl.DataFrame({"user_id": range(users)}), events_frame, "shop", "shop"))
