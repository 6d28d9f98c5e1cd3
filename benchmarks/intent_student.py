"""Closeness of a student's intents to the intents that it imitates, and CPU time per row.

A row contains the intents of one user at one time. Here these are the user's next three items in the world ``shop``, as
a language model that is always right would name them. The student is trained on the earliest four fifths of the rows.
On the later rows, it is compared with an untrained student of the same size, which mixes the vectors of the history.

The only row of the table: ``rows``, the number of training rows; ``fit_cpu_s``, the CPU time of the training;
``coverage`` of the student and ``coverage_untrained``, the mean over a row's intents of the largest cosine with any
intent of the student; ``cpu_ms_median`` and ``cpu_ms_least``, the CPU time of one row on one core, if rows are
requested one by one (400 times). The training takes six seconds of CPU time on an AMD EPYC.

    python -m benchmarks.intent_student [--quick] [--json benchmarks/results/intent_student.json]
"""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import torch

from benchmarks.harness import Result, run
from taiji.data.dataset import Dataset
from taiji.data.intent_rows import intent_rows
from taiji.data.item_text import item_texts
from taiji.features.intents import intent_columns
from taiji.features.student import IntentStudent, StudentSettings
from taiji.language.item_vectors import embedded, embedder_version
from taiji.metrics.intent_sets import coverage
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop

NEXT = 3
"""Number of next items that are the intents of a row."""
EMBEDDER = "wordllama"


def rows_of(dataset: Dataset, per_user: int) -> pl.DataFrame:
    """Return ``per_user`` rows per user, at quantiles of the log's times, with the user's next items as intents."""
    times = np.quantile(dataset.history.times, np.linspace(0.2, 0.95, per_user)).astype(np.int64)
    users = np.repeat(np.arange(dataset.n_users), per_user)
    as_ofs = np.tile(times, dataset.n_users)
    items, _ = dataset.history.after_batch(users, as_ofs, NEXT)
    counts = (items >= 0).sum(axis=1)
    said = items[items >= 0]
    columns = intent_columns(
        embedded(EMBEDDER, item_texts(dataset))[said],
        np.ones(len(said)),
        [[]] * len(said),
        counts.tolist(),
        StudentSettings().intents,
        f"{EMBEDDER}@{embedder_version(EMBEDDER)}",
    )
    return pl.concat([pl.DataFrame({"user": users, "as_of": as_ofs}), columns], how="horizontal")


def cpu_per_row(student: IntentStudent, dataset: Dataset, rows: pl.DataFrame, repeats: int) -> list[float]:
    """Request rows one by one on one core, and return the CPU time of each in milliseconds."""
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    users, times = rows["user"].to_numpy(), rows["as_of"].to_numpy()
    student.rows(dataset, users[:1], times[:1])
    for place in range(repeats):
        chosen = slice(place % len(rows), place % len(rows) + 1)
        start = time.process_time()
        student.rows(dataset, users[chosen], times[chosen])
        taken.append((time.process_time() - start) * 1e3)
    torch.set_num_threads(threads)
    return taken


def measure(quick: bool) -> Result:
    """Train the student, compare it with an untrained one, and measure its CPU time."""
    result = Result()
    shop = Dataset.from_tables(Shop(ShopSettings(users=120 if quick else 600, tail=300), 0).tables())
    rows = rows_of(shop, 5 if quick else 10).filter(pl.col("intent_weights").is_not_null())
    past = shop.history.count_before(rows["user"].to_numpy(), rows["as_of"].to_numpy())
    rows = rows.filter(pl.Series(past > 0))
    cut = int(rows["as_of"].quantile(0.8, interpolation="lower"))  # type: ignore[arg-type]
    known, later = rows.filter(pl.col("as_of") < cut), rows.filter(pl.col("as_of") >= cut)
    settings = StudentSettings(epochs=3) if quick else StudentSettings()
    start = time.process_time()
    student = IntentStudent(settings).fit(shop, known)
    seconds = time.process_time() - start
    users, times = later["user"].to_numpy(), later["as_of"].to_numpy()
    said = intent_rows(student.write(shop, users, times), settings.intents, 0).vectors
    untrained = IntentStudent(settings)
    untrained.facts = dict(student.facts)
    torch.manual_seed(0)
    untrained.network = untrained._built()
    untrained.restore(untrained.weights())
    mixed = intent_rows(untrained.write(shop, users, times), settings.intents, 0).vectors
    wanted = intent_rows(later, settings.intents, 0).vectors
    taken = cpu_per_row(student, shop, later, 50 if quick else 400)
    result.rows.append(
        {
            "rows": len(known),
            "fit_cpu_s": round(seconds, 1),
            "coverage": float(np.nanmean(coverage(said, wanted))),
            "coverage_untrained": float(np.nanmean(coverage(mixed, wanted))),
            "cpu_ms_median": float(np.median(taken)),
            "cpu_ms_least": float(np.min(taken)),
        }
    )
    result.at_most(
        "loss on the latest known rows over that of the untrained one",
        student.facts["loss"] / student.facts["loss_untrained"],
        1.0,
    )
    result.at_least("share of users with a history who have a row", float(np.mean(np.abs(said).any(axis=(1, 2)))), 1.0)
    return result


if __name__ == "__main__":
    run(measure)
