"""Rungs of the uplift ladder without a language model, their negative controls, and the oracle of intents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.data.dataset import Dataset
from taiji.data.fields import NumbersField, Rows
from taiji.data.item_text import item_texts
from taiji.experiments.uplift_trial import REFRESHES, Trial
from taiji.language.item_vectors import embedded
from taiji.models.ranking.pair_fields import CollaborativeMatch, TextMatch
from taiji.nn.set_match import SET_MATCHES, weighted_match

Array = NDArray[Any]
NEXT = 10
"""Number of the user's next items that the oracle of intents contains."""
COVERED = "covered"
"""Stratum of the rows about which a rung has information."""


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder.

    Attributes:
        name: name shown in tables.
        fields: function from the trial to the added fields.
        against: reference rung; None for the latest rung that is not a side branch. A reference that does not pay off
            is replaced by its own reference.
        side: True for a side branch (a control, an oracle), on which later rungs do not build.
        must_pay: True to also evaluate a ranker that drops the rung's fields if they do not pay off.
        cost: tokens of the language model, shown beside the gain of the rung.
        covers: function from the trial and a frame to a mask (N,) of the rows about which the rung has information;
            None for all rows.
        covered: function like ``covers`` for the rows of the stratum :data:`COVERED`; None uses ``covers``.
    """

    name: str
    fields: Callable[[Trial], Sequence[NumbersField]]
    against: str | None = None
    side: bool = False
    must_pay: bool = False
    cost: Mapping[str, float] = field(default_factory=dict)
    covers: Callable[[Trial, pl.DataFrame], Array] | None = None
    covered: Callable[[Trial, pl.DataFrame], Array] | None = None

    def strata(self, trial: Trial) -> dict[str, Array]:
        """Return the strata on which the rung is evaluated, masks of the test rows by name."""
        covered = self.covered or self.covers
        return trial.strata() | ({COVERED: covered(trial, trial.test)} if covered is not None else {})

    def shares(self, trial: Trial) -> dict[str, float]:
        """Return the shares of training and test rows about which the rung has information; empty if ``covers`` is
        None.

        A ranker learns little from information that few training rows have, even if many test rows have it.
        """
        if self.covers is None:
            return {}
        frames = {"told_train": trial.train, "told_test": trial.test}
        return {name: float(self.covers(trial, rows).mean()) for name, rows in frames.items()}


def counts(trial: Trial) -> list[NumbersField]:
    """Return no fields: point-in-time counts are in every rung."""
    return []


def collaborative(trial: Trial) -> list[NumbersField]:
    """Return the fields that use only the log."""
    return [CollaborativeMatch(refreshes=REFRESHES)]


@dataclass(frozen=True)
class Text:
    """Factory of the fields of item texts.

    Attributes:
        embedder: name of the embedder.
        kind: class of the field; controls are separate classes.
        vector: number of components of the item's text vector.
    """

    embedder: str
    kind: type[TextMatch] = TextMatch
    vector: int = 32

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return the fields."""
        return [self.kind(self.embedder, vector=self.vector, refreshes=REFRESHES)]


class PermutedTexts(TextMatch):
    """Negative control: the texts are permuted at random among the items."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of the permuted texts."""
        found = super().embed(dataset, np.arange(dataset.n_items))
        return found[np.random.default_rng(0).permutation(dataset.n_items)[items]]


class RandomVectors(TextMatch):
    """Negative control: random vectors with the mean and covariance of the text vectors."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return normal vectors with the same mean and covariance."""
        found = super().embed(dataset, np.arange(dataset.n_items))
        centre = found.mean(axis=0)
        mixed = np.random.default_rng(0).standard_normal((len(found), len(found))) if len(found) < 500 else None
        if mixed is None:
            root = np.linalg.cholesky(np.cov(found.T) + 1e-9 * np.eye(found.shape[1]))
            made = centre + np.random.default_rng(0).standard_normal(found.shape) @ root.T
        else:
            made = centre + mixed @ (found - centre) / np.sqrt(len(found))
        return made.astype(np.float32)[items]


class NoiseTitles(TextMatch):
    """Negative control: each text (title and categories) becomes equally many words, drawn from all texts without
    replacement."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of the random texts."""
        texts = [text.split() for text in item_texts(dataset)]
        words = np.array([word for text in texts for word in text])
        words = words[np.random.default_rng(0).permutation(len(words))]
        ends = np.cumsum([len(text) for text in texts])
        noise = [" ".join(words[end - len(text) : end]) for text, end in zip(texts, ends)]
        return embedded(self.embedder_used, [noise[item] for item in items])


class AnotherHistory(TextMatch):
    """Negative control: candidates are compared with another user's history, by a random permutation of the users."""

    def matrix(self, rows: Rows) -> Array:
        """Return the values that each row would have for another user."""
        others = np.random.default_rng(0).permutation(rows.dataset.n_users)
        return super().matrix(Rows(rows.dataset, rows.frame.with_columns(user=pl.Series(others[rows.user]))))


class NextItems(NumbersField):
    """Oracle of intents: agreement of a candidate with the texts of its user's actual next items.

    The oracle answers at given times, and a row uses the latest answer that is not newer than the row. The next items
    are the items of the user's interactions from the time of this answer on. Items of interactions at the row's own
    time are excluded for all candidates: if only the positive's own item were excluded, the size of the set would
    reveal the label.

    Args:
        text: fitted field whose vectors are compared.
        times: times of the answers, ascending.
        own: True to include items at the row's own time.
        name: name of the field.
    """

    def __init__(self, text: TextMatch, times: Sequence[int], own: bool = False, name: str = "next_items") -> None:
        super().__init__(name, "pair")
        self.text, self.times, self.own = text, np.asarray(times, dtype=np.int64), own

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values."""
        return tuple(f"{self.name}_{part}" for part in SET_MATCHES) if self.text.labels else ()

    def matrix(self, rows: Rows) -> Array:
        """Return the agreement, (N, 3) float32; 0 before the first answer. Without any text, it has no columns."""
        out = np.zeros((len(rows), len(self.labels)), np.float32)
        if not self.labels or not len(self.times):
            return out
        numbers = self.text.numbering(rows.dataset)
        made = np.searchsorted(self.times, rows.time, side="right") - 1
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            asked = np.where(made[part] >= 0, self.times[np.maximum(made[part], 0)], np.iinfo(np.int64).max)
            items, times = rows.dataset.history.after_batch(rows.user[part], asked, NEXT)
            there = (items >= 0) & (self.own | (times != rows.time[part][:, None]))
            sets = np.where(there, numbers[items], -1)
            cosines = self.text.vectors.batch_cosines(sets, numbers[rows.item[part]][:, None])
            out[part] = weighted_match(cosines.reshape(NEXT, -1), there.T.astype(np.float32)).T
        return out


@dataclass(frozen=True)
class NextTexts:
    """Factory of the oracle of intents with an embedder's vectors; see :class:`NextItems`."""

    embedder: str
    own: bool = False

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return the field, with answers at the times at which fields are refreshed."""
        text = TextMatch(self.embedder, refreshes=REFRESHES)
        text.fit(trial.dataset, trial.train, trial.cut)
        return [NextItems(text, [*map(int, text.cuts), *trial.refreshes], self.own)]


def ladder(embedder: str) -> list[Rung]:
    """Return the rungs without a language model, the controls of the text, and the oracle of intents.

    To add a rung, add an entry with its fields and its reference rung.
    """
    base, text = "1 collaborative", f"2 text match, {embedder}"
    return [
        Rung("0 counts", counts),
        Rung(base, collaborative),
        Rung(text, Text(embedder), must_pay=True),
        Rung(f"{text}: control, permuted texts", Text(embedder, PermutedTexts), base, True, True),
        Rung(f"{text}: control, random vectors", Text(embedder, RandomVectors), base, True, True),
        Rung(f"{text}: control, noise titles", Text(embedder, NoiseTitles), base, True, True),
        Rung(f"{text}: control, another history", Text(embedder, AnotherHistory, 0), base, True, True),
        Rung(
            f"4 oracle of intents, {embedder}: the true next {NEXT}, without those at the row's time",
            NextTexts(embedder),
            text,
            True,
            True,
        ),
    ]
