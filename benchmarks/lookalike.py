"""Time, memory and recall of the search for look-alikes over a million rows.

The *look-alike* of a row is the most similar row of another user; of each other user, only the newest row at that time
counts. Rows are synthetic: each stands for the vector of an answer about a user at some time. It is the sum of a topic,
a variant and a part of its own. About every tenth row lacks this last part, like an answer that repeats a common one
word for word. There are 1,000,000 rows of 200,000 users with 256 numbers each; a quick run has 8,000 rows of 1,600
users with 32 numbers. All rows are searched by the approximate index, and a sample of 500 rows also exactly.

The only row of the table: ``rows``, ``width`` (numbers per row), ``seconds`` and ``MB`` (growth of the process's memory
at its peak, in MiB) of the approximate search; ``recall@1``, the share of the sample whose look-alike is as similar as
the one that the exact search finds; ``cosine lost``, the mean difference of the cosines. The search takes 5 min 12 s on
two cores of an Intel Xeon.

    python -m benchmarks.lookalike [--quick] [--json benchmarks/results/lookalike.json]
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Result, run
from benchmarks.measuring import peak_memory
from taiji.features.lookalike import nearest_users

Array = NDArray[Any]
SAMPLE = 500
"""Number of rows for which the exact search is also run."""


def answers(rows: int, people: int, width: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return users (rows,), ascending times (rows,) and vectors (rows, width) of synthetic answers."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(300, width)).astype(np.float32)
    shades = random.normal(size=(5000, width)).astype(np.float32)
    users, times = random.integers(people, size=rows), np.sort(random.integers(10**9, size=rows))
    topic = random.integers(300, size=people)[users]
    shade = random.integers(5000, size=rows)
    vectors = np.empty((rows, width), np.float32)
    for at in range(0, rows, 100_000):
        part = slice(at, at + 100_000)
        own = random.standard_normal((len(users[part]), width), dtype=np.float32)
        own *= (random.random(len(own)) > 0.1)[:, None]
        vectors[part] = topics[topic[part]] + 0.7 * shades[shade[part]] + 0.5 * own
    return users, times, vectors


def exact(users: Array, times: Array, vectors: Array, rows: Array) -> Array:
    """Return the cosine (S,) between each of the given rows (S,) and its true look-alike."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.lexsort((times, users))
    end = np.full(len(users), np.iinfo(np.int64).max)
    same = users[order][1:] == users[order][:-1]
    end[order[:-1][same]] = times[order[1:][same]]
    out = np.empty(len(rows), np.float32)
    for place, row in enumerate(rows):
        known = int(np.searchsorted(times, times[row], side="right"))
        alive = (end[:known] > times[row]) & (users[:known] != users[row])
        out[place] = (unit[:known] @ unit[row])[alive].max(initial=-np.inf)
    return out


def measure(quick: bool) -> Result:
    """Search all rows once, and compare a sample with the exact search."""
    rows, people, width = (8000, 1600, 32) if quick else (1_000_000, 200_000, 256)
    result = Result()
    users, times, vectors = answers(rows, people, width)
    start = time.perf_counter()
    (_, cosines), memory = peak_memory(lambda: nearest_users(users, times, vectors, exact_below=rows // 20))
    seconds = time.perf_counter() - start
    sample = np.sort(np.random.default_rng(1).choice(np.arange(rows // 10, rows), SAMPLE, replace=False))
    best = exact(users, times, vectors, sample)
    recall = float((cosines[sample] >= best - 1e-4).mean())
    loss = float(np.mean(np.maximum(best - cosines[sample], 0)))
    result.rows.append(
        {"rows": rows, "width": width, "seconds": seconds, "MB": memory, "recall@1": recall, "cosine lost": loss}
    )
    result.at_least("recall@1 against the exact search", recall, 0.95)
    if not quick:
        result.at_most("MB beside the answers themselves", memory, 6000.0)
    return result


if __name__ == "__main__":
    run(measure)
