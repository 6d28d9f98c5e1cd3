"""Look-alike search over a million rows: seconds, memory, and how often it finds what the exact search finds.

Rows are vectors of answers about users over time. Each is the sum of a topic, a variant, and a part specific to the
row; every tenth row lacks this part, like an answer that repeats a common one word for word. Full: 1,000,000 rows of
200,000 users, 256 numbers each. Quick: 8,000 rows of 1,600 users, 32 numbers. For a sample, the exact search reads
every row that is valid at the time.
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
    """Return users, times and vectors of synthetic answers."""
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
    """Return the cosine (S,) of each row's true look-alike."""
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
    """Search once, and compare a sample with the exact search."""
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
