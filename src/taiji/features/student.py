"""Student: a small model distilled from the language model's intent rows.

A row from the language model costs a prompt and an answer, so most users have no row, or an outdated one. The student
predicts the intents of any user at request time, in under a millisecond. It reads the vectors of the texts of a user's
items, newest first, and predicts the language model's intents as a set of weighted vectors. It is trained on the
existing rows. It does not predict categories, so ``intent_levels`` is empty in its rows.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.errors import ConfigError, InputError
from taiji.core.settings import Settings
from taiji.data.dataset import Dataset
from taiji.data.intent_rows import FULL_SCALE, INTENTS, intent_rows
from taiji.data.item_text import item_texts
from taiji.language.item_vectors import embedded, embedder_version
from taiji.metrics.intent_sets import SAME_INTENT
from taiji.models.learnt_component import LearntComponent
from taiji.nn.intent_network import IntentNetwork, OneHistory, set_loss

Array = NDArray[Any]
Row = tuple[list[int] | None, list[float] | None, list[list[str]] | None, str | None]
STUDENT = "student"
"""Name of the student's folder, next to the feature tables."""
LEAST_WEIGHT = 0.02
"""Smallest weight of an intent in a row."""
LATEST = 0.15
"""Share of the rows that are held out for early stopping; these are the latest rows."""
FEWEST = 20
"""Smallest number of rows for training."""
BLOCK = 2048
"""Number of rows converted to a table at a time. Rows as Python lists take eight times as much memory as a table."""


class StudentSettings(Settings):
    """Size and training of the student."""

    intents: PositiveInt = 8
    """Number of intents that are predicted per row."""
    history: PositiveInt = 50
    """Number of most recent interactions read per user."""
    width: PositiveInt = 64
    """Width of the transformer."""
    heads: PositiveInt = 4
    """Number of attention heads."""
    layers: PositiveInt = 2
    """Number of transformer blocks."""
    epochs: PositiveInt = 60
    """Largest number of passes over the training rows."""
    patience: PositiveInt = 6
    """Number of passes without improvement on the latest rows after which training stops."""
    batch: PositiveInt = 128
    """Number of rows per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""


class IntentStudent(LearntComponent):
    """Small model that predicts a user's intents, trained on the language model's intent rows.

    Args:
        settings: size and training settings.
    """

    Settings = StudentSettings
    settings: StudentSettings

    def __init__(self, settings: StudentSettings | None = None) -> None:
        super().__init__(settings)
        self.network: IntentNetwork | None = None
        self._reader: OneHistory | None = None
        self._vectors: tuple[pl.DataFrame, str, Array] | None = None

    def fit(self, dataset: Dataset, table: pl.DataFrame, seed: int = 0) -> Self:
        """Train on intent rows.

        Args:
            dataset: dataset with the histories, which are read strictly before the ``as_of`` of each row.
            table: table with ``user``, ``as_of`` and the columns of :data:`taiji.data.intent_rows.INTENTS`.
            seed: random seed of the initial weights and of the order of the rows.

        Raises:
            InputError: too few rows have intents and a history, or the rows come from several embedders.
        """
        told = table.filter(pl.col("intent_weights").list.len() > 0).sort("as_of", "user", maintain_order=True)
        names = told["intent_embedder"].unique()
        users, times = (told[name].to_numpy().astype(np.int64) for name in ("user", "as_of"))
        told = told.filter(pl.Series(dataset.history.count_before(users, times) > 0))
        if len(names) != 1 or len(told) < FEWEST:
            raise InputError(
                "The intent rows do not suffice to train the student.",
                where="features.student",
                expected=f"at least {FEWEST} rows of users with a history, from one embedder",
                found=f"{len(told)} rows, embedders {', '.join(map(str, names))}",
                fix="compute features for more users (size.feature_users), with reasoning.prompts.answer: set",
            )
        self.facts = {"embedder": names[0]}
        vectors = self._item_vectors(dataset)
        self.facts["dimension"] = vectors.shape[1]
        sets = intent_rows(told, self.settings.intents, 0)
        order = np.argsort(-sets.weights, axis=1, kind="stable")
        targets = torch.from_numpy(np.take_along_axis(sets.vectors, order[:, :, None], axis=1))
        weights = torch.from_numpy(np.take_along_axis(sets.weights, order, axis=1))
        users, times = (told[name].to_numpy().astype(np.int64) for name in ("user", "as_of"))
        items = self._items(dataset, users, times)
        late = max(1, round(LATEST * len(told)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self._built()
            self._train(vectors, items, targets, weights, len(told) - late, seed)
        return self

    def _train(
        self,
        vectors: Array,
        items: Array,
        targets: torch.Tensor,
        weights: torch.Tensor,
        first: int,
        seed: int,
    ) -> None:
        """Train on the rows before index ``first``, and keep the weights of the epoch with the lowest loss on the later
        rows."""
        network, settings = self.network, self.settings
        assert network is not None
        optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
        rng = np.random.default_rng(seed)

        def loss(rows: Array | slice) -> torch.Tensor:
            said, logarithms = network(*_read(vectors, items[rows]))
            return set_loss(said, logarithms, targets[rows], weights[rows]).mean()

        def later() -> float:
            with torch.inference_mode():
                return float(loss(slice(first, None)))

        untrained = best = later()
        waited, kept = 0, _copy(network)
        for _ in range(settings.epochs):
            order = rng.permutation(first)
            for start in range(0, first, settings.batch):
                optimiser.zero_grad()
                loss(order[start : start + settings.batch]).backward()
                optimiser.step()
            now = later()
            waited = 0 if now < best else waited + 1
            if now < best:
                best, kept = now, _copy(network)
            if waited >= settings.patience:
                break
        network.load_state_dict(kept)
        self._reader = OneHistory(network.eval())
        self.facts |= {"loss": round(best, 6), "loss_untrained": round(untrained, 6), "rows": len(items)}

    def _built(self) -> IntentNetwork:
        s = self.settings
        return IntentNetwork(self.facts["dimension"], s.width, s.heads, s.layers, s.history, s.intents)

    def write(self, dataset: Dataset, users: Array, as_ofs: Array) -> pl.DataFrame:
        """Return the results of :meth:`rows` as columns of a feature table."""
        blocks = [
            pl.DataFrame(
                self.rows(dataset, users[start : start + BLOCK], as_ofs[start : start + BLOCK]),
                schema=INTENTS,
                orient="row",
            )
            for start in range(0, max(len(users), 1), BLOCK)
        ]
        return pl.concat(blocks)

    def rows(self, dataset: Dataset, users: Array, as_ofs: Array) -> list[Row]:
        """Return the values of :data:`taiji.data.intent_rows.INTENTS` for each user and time.

        For a user without history before the time, all values are None. Rows are computed one at a time, so that the
        floating-point values of a row do not depend on the other requested rows.

        Args:
            dataset: any dataset with the same catalogue.
            users: (N,) dense user ids.
            as_ofs: (N,) times in microseconds.

        Raises:
            ConfigError: the student has not been trained.
        """
        if self._reader is None:
            raise ConfigError(
                "The student has not been trained.", where="features.student", fix="fit or load a student"
            )
        catalogue = self._item_vectors(dataset)
        rows: list[Row] = []
        for items in self._items(dataset, users, as_ofs):
            known = items[items >= 0]
            rows.append(self._row(*self._reader(catalogue[known])) if len(known) else (None, None, None, None))
        return rows

    def _row(self, vectors: Array, weights: Array) -> Row:
        """Convert the predicted intents of one user to a row.

        Intents lighter than :data:`LEAST_WEIGHT` are dropped, but never the heaviest one. Near-duplicates are merged
        into the first of them, and the intents are sorted by descending weight. The values equal those of
        :func:`taiji.metrics.intent_sets.merged` and :func:`taiji.data.intent_rows.to_int8`. They are computed here in
        fewer steps, because this method runs at request time.
        """
        cosines, said = (vectors @ vectors.T).tolist(), weights.tolist()
        total: dict[int, float] = {}
        least = min(LEAST_WEIGHT, max(said))
        for place, weight in enumerate(said):
            if weight >= least:
                first = next((kept for kept in total if cosines[kept][place] >= SAME_INTENT), place)
                total[first] = total.get(first, 0.0) + weight
        places = sorted(total, key=lambda place: (-total[place], place))
        kept = vectors[places]
        codes = np.rint(kept * (FULL_SCALE / np.abs(kept).max(axis=1, keepdims=True)))
        mass = sum(total.values())
        shares = [total[place] / mass for place in places]
        return codes.astype(np.int8).ravel().tolist(), shares, [[] for _ in places], self.facts["embedder"]

    def _items(self, dataset: Dataset, users: Array, times: Array) -> Array:
        """Return the newest items (N, L) int64 of each user strictly before each time, padded with −1."""
        found = dataset.history.before_batch(users.astype(np.int64), times.astype(np.int64), self.settings.history)
        return found[0].astype(np.int64)

    def _item_vectors(self, dataset: Dataset) -> Array:
        """Return the vectors of the item texts, followed by a row of zeros, (n + 1, d). The vectors of one catalogue
        are cached."""
        embedder = self.facts["embedder"]
        if self._vectors is None or self._vectors[0] is not dataset.items or self._vectors[1] != embedder:
            name, _, version = self.facts["embedder"].partition("+")[0].rpartition("@")
            if embedder_version(name) != version:
                raise InputError(
                    "The embedder differs from the one that embedded the intents.",
                    where="features.student",
                    expected=f"{name}, version {version}",
                    found=f"version {embedder_version(name)}",
                    fix="install the version that was used for the features, or compute them again",
                )
            found = embedded(name, item_texts(dataset))
            padded = np.concatenate([found, np.zeros((1, found.shape[1]), np.float32)])
            self._vectors = (dataset.items, embedder, padded)
        return self._vectors[2]

    def weights(self) -> dict[str, Array]:
        """Return the network's weights by name."""
        assert self.network is not None
        return {name: value.detach().numpy() for name, value in self.network.state_dict().items()}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the student from :meth:`weights`."""
        self.network = self._built()
        self.network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        self._reader = OneHistory(self.network.eval())


def _read(catalogue: Array, items: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the item vectors (B, L, d) of histories ``items`` (B, L), and a mask (B, L) of their items. An item of −1
    selects the row of zeros at the end of the catalogue."""
    return torch.from_numpy(catalogue[items]), torch.from_numpy(items >= 0)


def _copy(network: IntentNetwork) -> dict[str, torch.Tensor]:
    """Return a copy of the network's weights."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def filled(
    exposures: pl.DataFrame, dataset: Dataset, student: IntentStudent, oldest_s: float | None = None
) -> pl.DataFrame:
    """Return the exposures with the student's intents where the intents of the language model are missing or outdated.

    Args:
        exposures: table with user, time, and the columns of intents that
            :func:`taiji.features.feature_table.join_features` adds.
        dataset: dataset with the histories, which are read strictly before each exposure.
        student: trained student.
        oldest_s: age of a row, in seconds since its ``as_of``, above which the row is outdated. With None, rows never
            become outdated.
    """
    missing = pl.col("intent_weights").list.len().fill_null(0) == 0
    if oldest_s is not None:
        old = (pl.col("time") - pl.col("feature_as_of")) > round(oldest_s * 1e6)
        missing = missing | old.fill_null(True)
    gaps = exposures.select(missing.alias("gap"))["gap"]
    asked = exposures.filter(gaps).select("user", "time").unique(maintain_order=True)
    said = student.write(dataset, asked["user"].to_numpy(), asked["time"].to_numpy())
    told = pl.concat([asked, said], how="horizontal")
    joined = exposures.join(told, on=["user", "time"], how="left", suffix="_student", maintain_order="left")
    chosen = [pl.when(gaps).then(pl.col(f"{name}_student")).otherwise(name).alias(name) for name in INTENTS]
    return joined.with_columns(chosen).drop(f"{name}_student" for name in INTENTS)
