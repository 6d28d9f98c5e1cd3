"""Does training a text encoder on pairs of items that occur together bring the vectors of a user's next and previous
items closer to each other?

Data: amazon-office in the folder TAIJI_TEST_DATA; a quick run uses a checkerboard, where both items of a pair have the
same colour. The encoder is a small causal LM with random weights and a tokenizer fitted to the titles, so that it knows
nothing but this log. The pairs come from the log without each user's last items.

Metric (column ``preferred``): the share of users whose last item is nearer to their previous item than an equally
popular item is; by chance one half. One row per ``arm`` and ``seed``.

Arms, all with the same encoder: ``aligned`` on the pairs and on a question about each item; ``shuffled pairs``, the
deciding baseline, aligned on pairs whose second items are shuffled; ``aligned, judged pairs``, without the pairs of
items whose titles have dissimilar WordLlama vectors; ``aligned, no answers``, without the question; ``not trained``.
Further rows: WordLlama's vectors, as they are and smoothed over co-occurring items.

Claim, stated beforehand: over five seeds, the lower end of the interval of ``aligned`` minus ``shuffled pairs`` is at
least 0. No result of a full run is stored.

    TAIJI_TEST_DATA=FOLDER python -m benchmarks.components --only aligned_embeddings [--quick] [--json FILE]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.components.comparison import Component, interval
from benchmarks.harness import Result
from benchmarks.sequential import last_out
from taiji.data import Dataset, load_source
from taiji.data.history import History
from taiji.language.aligned_encoder import AlignedEncoder, AlignedSettings
from taiji.language.causal_lm import LanguageModel
from taiji.language.embed import load_embedder
from taiji.language.tiny import tiny_causal_lm, tiny_tokenizer
from taiji.models.codes.smoothing import smoothed
from taiji.models.retrieval.cooccurrence import symmetric_pairs
from taiji.models.retrieval.item_pairs import distinct_pairs, matched_items, nearest_pairs, preferred
from taiji.models.retrieval.swing import swing
from taiji.models.retrieval.two_towers import TwoTowers
from taiji.reasoning.pair_judge import Cosine, judged_pairs
from taiji.testing import checkerboard

Array = NDArray[Any]
SEEDS = 5
LEAST = 0.3
"""Smallest cosine of two titles (WordLlama's vectors) with which the judge accepts a pair."""


@dataclass(frozen=True)
class Trial:
    """Texts and training pairs of one log and seed, and the test.

    Attributes:
        texts: title of each item.
        answers: question about each item, and its answer.
        history: training log.
        pairs: first items and second items of the training pairs.
        test: previous items, last items, and items as popular as the last ones.
    """

    texts: list[str]
    answers: list[tuple[str, str]]
    history: History
    pairs: tuple[Array, Array]
    test: tuple[Array, Array, Array]

    @classmethod
    def of(cls, dataset: Dataset, seed: int, epochs: int) -> Trial:
        """Return the trial of a dataset. Each user's last items are the test."""
        train, requests, targets = last_out(dataset)
        history = History.from_events(train, dataset.n_users)
        towers = TwoTowers(TwoTowers.Settings(epochs=epochs)).fit(dataset, train, seed=seed)
        items, _ = history.before_batch(requests.user, requests.time, 1)
        before, after = items[np.repeat(np.arange(len(targets)), targets.counts), 0], np.asarray(targets.items)
        there = (before >= 0) & (before != after)
        popularity = np.bincount(history.items, minlength=dataset.n_items)
        test = before[there], after[there], matched_items(before[there], after[there], popularity, seed)
        pairs = distinct_pairs(swing(history, dataset.n_items, neighbours=10), nearest_pairs(towers.vectors, 3))
        texts = dataset.items["title"].to_list()
        asked = "brand" if "brand" in dataset.items.columns else next(iter(dataset.levels), "title")
        said = dataset.items[asked].cast(pl.String).fill_null("unknown").to_list()
        return cls(texts, [(f"{asked}? ", answer) for answer in said], history, pairs, test)


def aligned(trial: Trial, pairs: tuple[Array, Array] | None, settings: AlignedSettings, seed: int, told: bool) -> Array:
    """Return the vectors of a small LM that is aligned on pairs and, if ``told``, on the answers to the question about
    each item.

    If ``pairs`` is None, the LM is not trained.
    """
    model, tokenizer = tiny_causal_lm(tiny_tokenizer(trial.texts, 2048), hidden=64, layers=2, seed=seed)
    encoder = AlignedEncoder.start(LanguageModel(model, tokenizer, "tiny"), settings, seed)
    if pairs is not None:
        encoder.fit(trial.texts, pairs, trial.answers if told else None, seed)
    return encoder.encode(trial.texts)


def arms(trial: Trial, settings: AlignedSettings, seed: int) -> dict[str, Array]:
    """Return the item vectors of all arms by name."""
    wordllama = load_embedder("wordllama")
    first, second = trial.pairs
    judged = judged_pairs(first, second, trial.texts, Cosine(wordllama, LEAST))
    shuffled = first, np.random.default_rng(seed).permutation(second)
    words = wordllama.encode(trial.texts)
    company = symmetric_pairs(trial.history, 10, 0.8, len(trial.texts))
    return {
        "aligned": aligned(trial, trial.pairs, settings, seed, told=True),
        "shuffled pairs": aligned(trial, shuffled, settings, seed, told=True),
        "aligned, judged pairs": aligned(trial, judged, settings, seed, told=True),
        "aligned, no answers": aligned(trial, trial.pairs, settings, seed, told=False),
        "not trained": aligned(trial, None, settings, seed, told=False),
        "wordllama": words,
        "wordllama, smoothed": smoothed(words, company),
    }


def exact(result: Result, quick: bool) -> None:
    """Run all arms with each seed."""
    folder = Path(os.environ.get("TAIJI_TEST_DATA", "")) / "amazon-office"
    if not quick and not folder.is_dir():
        print("aligned_embeddings: skipped, amazon-office was not found")
        return
    dataset = checkerboard() if quick else Dataset.from_tables(load_source(folder, non_clicks=0))
    settings = AlignedSettings(steps=5 if quick else 300, batch=8 if quick else 64, rate=2e-3, temperature=0.1)
    found: dict[str, list[float]] = {}
    for seed in range(2 if quick else SEEDS):
        trial = Trial.of(dataset, seed, epochs=1 if quick else 10)
        for name, vectors in arms(trial, settings, seed).items():
            found.setdefault(name, []).append(preferred(vectors, *trial.test))
            result.rows.append(
                {"component": "aligned_embeddings", "arm": name, "seed": seed, "preferred": found[name][-1]}
            )
            result.so_far()
    differences = [a - b for a, b in zip(found["aligned"], found["shuffled pairs"])]
    _, low, _ = interval(differences)
    if not quick:
        result.at_least("aligned_embeddings: aligned − shuffled pairs, lower end", low, 0.0)


COMPONENT = Component(
    claim="an encoder aligned on pairs of the log places the next item nearer",
    metric="",
    arms={},
    data=lambda place, seed, quick: None,
    exact=exact,
)
