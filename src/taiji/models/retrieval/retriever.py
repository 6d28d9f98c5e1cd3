"""Base class of retrievers that score every item. It handles availability, seen items and saving. Each model adds its
own scores."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from taiji.core.artifacts import atomic_folder, read_json, value_hash, write_json, write_parquet
from taiji.core.component import NO_ITEM, Requests, Slate, as_subclass, find_class
from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.history import History, rows_and_places
from taiji.models.retrieval.settings import GROUP, RetrieverSettings
from taiji.models.retrieval.top_items import top_items

Array = NDArray[Any]
FORMAT = 1
BLOCK = 4_000_000
"""Largest number of scores held in memory at once."""
REPEATS = 0.05
"""With ``seen: auto``, seen items remain candidates if at least this share of the log's interactions are repeats."""


class CatalogueRetriever(ABC):
    """Base class of retrievers that choose candidates from the catalogue of a dataset.

    A model numbers the N items of the catalogue on which it was fitted. When it is bound to a later dataset, these
    indices are translated to the item ids of that dataset. A model implements :meth:`learn`, :meth:`scores`,
    :meth:`weights` and :meth:`restore`.

    Attributes:
        settings: settings as given.
        dataset: source of the users and items.
        log: dataset passed to :meth:`fit` or :meth:`load`. Unlike ``dataset``, it does not change in :meth:`bound_to`.
            Item statistics, such as popularity, come from its events.
        availability: times at which each item may be retrieved; set it to restrict the retrieved items.
        keeps_seen: True if seen items remain candidates.
        facts: learnt values that are not arrays, JSON-serialisable.
    """

    Settings: ClassVar[type[RetrieverSettings]] = RetrieverSettings

    def __init__(self, settings: RetrieverSettings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.keeps_seen = self.settings.seen == "keep"
        self.facts: dict[str, Any] = {}

    # Methods that a model implements.

    @abstractmethod
    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Fit to the interactions of all users, with items numbered as in the catalogue."""

    @abstractmethod
    def scores(self, requests: Requests) -> Array:
        """Return scores (B, N) float64, with −inf for items that must not be retrieved. No event at or after the time
        of a request may be read."""

    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """Return the learnt arrays."""

    @abstractmethod
    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the retriever from :meth:`weights`."""

    # Methods that a model may override.

    def room(self, k: int) -> int:
        """Return the largest number of hidden items with which a request for ``k`` items is passed to :meth:`best`.

        Hidden items are those that must not be retrieved for the request. If more items are hidden, every item is
        scored, and :meth:`best` is not called. With −1, every item is always scored.
        """
        return -1

    def best(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` items of each request with the highest scores, in the model's own indices. The base class
        scores all items.

        The slate has width ``k`` and is padded if a request has fewer items. Ties go to the smaller index.
        """
        return top_items(self.scores(requests), k)

    def bound_to(self, users: Dataset) -> Self:
        """Return a copy bound to other users of the same catalogue. The copy shares the learnt arrays."""
        made = copy(self)
        made.dataset = users
        return made

    # Methods common to all.

    def fit(
        self, dataset: Dataset, rows: pl.DataFrame | None = None, *, seed: int = 0, device: str | None = None
    ) -> Self:
        """Fit to interactions.

        Args:
            dataset: dataset that defines users and items. Retrieval reads the part of its history that lies strictly
                before each request.
            rows: events (``user, item, time, click``), of which only the clicks are used; by default all events of the
                dataset.
            seed: random seed; on a CPU, the same seed gives the same weights.
            device: ``cpu``, ``cuda`` or ``auto``, for models that compute with torch.

        Raises:
            InputError: there are no interactions.
        """
        history = History.from_events(dataset.events if rows is None else rows, dataset.n_users)
        if not len(history.items):
            raise InputError(
                "There are no interactions to fit retrieval to.",
                where="rows",
                expected="events with click = 1",
                found="none",
            )
        self._bind(dataset, dataset.items["item_id"])
        if self.settings.seen == "auto":
            self.keeps_seen = share_of_repeats(history) >= REPEATS
        self.learn(history, seed, device)
        return self

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` best items of each request that are available at its time. Seen items are left out unless
        ``keeps_seen``."""
        size = max(1, BLOCK // max(len(self.places), 1))
        parts = [self._retrieve(requests.take(slice(at, at + size)), k) for at in range(0, len(requests), size)]
        if not parts:
            return Slate(np.zeros((0, min(k, len(self.places))), np.int64))
        assert all(part.scores is not None for part in parts)
        return Slate(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.scores for part in parts if part.scores is not None]),
        )

    def _retrieve(self, requests: Requests, k: int) -> Slate:
        rows, hidden = self._hidden(requests)
        counts = np.bincount(rows, minlength=len(requests))
        quick = counts <= self.room(k)
        width = min(k, len(self.places))
        items, scores = np.empty((len(requests), width), np.int64), np.empty((len(requests), width))
        for chosen, answer in ((quick, self._best_shown), (~quick, self._best_of_all)):
            if chosen.any():
                inside = chosen[rows]
                places = (np.cumsum(chosen) - 1)[rows[inside]]
                asked = requests if chosen.all() else requests.take(np.flatnonzero(chosen))
                slate = answer(asked, width, (places, hidden[inside]))
                assert slate.scores is not None
                items[chosen], scores[chosen] = slate.items, slate.scores
        return Slate(np.where(items >= 0, self.places[items], NO_ITEM), scores)

    def _best_of_all(self, requests: Requests, k: int, hidden: tuple[Array, Array]) -> Slate:
        """Return the ``k`` best items by scoring every item."""
        scores = self.scores(requests)
        scores[hidden] = -np.inf
        return top_items(scores, k)

    def _hidden(self, requests: Requests) -> tuple[Array, Array]:
        """Return the pairs of request index and item, each (H,), that must not be retrieved: the item was removed from
        the catalogue, is unavailable, or was seen (if seen items are dropped)."""
        rows, items = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if self.availability.bounded:
            rows, items = np.nonzero(self._gone | ~self.availability.at(requests.time)[:, self.places])
        elif self._gone.any():
            rows, items = np.nonzero(np.broadcast_to(self._gone, (len(requests), len(self.places))))
        if not self.keeps_seen:
            row, seen = seen_items(self.dataset.history, requests)
            seen = self.codes[seen]
            rows, items = np.concatenate([rows, row[seen >= 0]]), np.concatenate([items, seen[seen >= 0]])
        return rows, items

    def _best_shown(self, requests: Requests, k: int, hidden: tuple[Array, Array]) -> Slate:
        """Return the ``k`` best items by :meth:`best`, which is called with a larger ``k`` to make up for the hidden
        items."""
        rows, items = hidden
        count = len(self.places)
        slate = self.best(requests, min(k + int(np.bincount(rows, minlength=1).max()), count))
        keys = np.arange(len(requests))[:, None] * count + slate.items
        out = np.isin(keys, rows * count + items)
        return slate.kept(~out).first(k)

    def recent(self, requests: Requests) -> tuple[Array, Array]:
        """Return the user's last ``settings.history`` interactions strictly before each request, newest first.

        Returns:
            items (B, L) in the model's own indices, with −1 for padding and unknown items, and their times (B, L).
        """
        items, times = self.dataset.history.before_batch(requests.user, requests.time, self.settings.history)
        return np.where(items >= 0, self.codes[items], -1), times

    @property
    def version(self) -> str:
        """Hash of weights, settings and catalogue."""
        digest = hashlib.sha256(value_hash([self._config(), self.item_ids.to_list()]).encode())
        for name, value in sorted(self.weights().items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors``, ``items.parquet`` and ``config.json`` atomically."""
        with atomic_folder(folder) as temporary:
            save_file(
                {name: np.ascontiguousarray(value) for name, value in self.weights().items()},
                temporary / "weights.safetensors",
            )
            write_parquet(temporary / "items.parquet", pl.DataFrame({"item_id": self.item_ids}))
            write_json(temporary / "config.json", self._config())

    @classmethod
    def load(cls, folder: str | Path, dataset: Dataset, device: str | None = None) -> Self:
        """Read a saved retriever, and bind it to the original dataset or to a later one with more users and items.

        Called on the class of a model, it loads only retrievers of that class; called on this base class, it loads any
        retriever.

        Raises:
            ArtifactError: the folder is damaged, or was written by another version or model.
            ConfigError: the class of the retriever cannot be imported.
        """
        folder = Path(folder)
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT:
            raise ArtifactError(
                "This version cannot read a retriever from this folder.",
                where=str(folder),
                expected=f"config.json with format {FORMAT}",
                found=f"format {config.get('format')}",
                fix="fit the retriever again",
            )
        try:
            kind = retriever_class(config["class"], str(folder))
            if not issubclass(kind, cls):
                raise TypeError(f"a {kind.__name__}, not a {cls.__name__}")
            made = kind(kind.Settings.model_validate(config["settings"]))
            made.keeps_seen, made.facts = config["keeps_seen"], config["facts"]
            made._bind(dataset, pl.read_parquet(folder / "items.parquet")["item_id"])
            made.restore(load_file(folder / "weights.safetensors"), device)
        except ConfigError:
            raise
        except Exception as error:  # a damaged file can raise any error
            raise ArtifactError(
                "The saved retriever is damaged, or belongs to a different model.",
                where=str(folder),
                found=str(error)[:300],
                fix="fit the retriever again",
            ) from error
        return made

    def _bind(self, dataset: Dataset, item_ids: pl.Series) -> None:
        """Number the items as in ``item_ids``, and find them in the dataset."""
        self.dataset = self.log = dataset
        self.item_ids = item_ids
        self.availability = Availability.of(dataset)
        own = pl.DataFrame({"item_id": item_ids}).with_row_index("own")
        theirs = dataset.items.select("item_id", pl.col("item").cast(pl.Int64))
        self.places: Array = (
            own.join(theirs, on="item_id", how="left", maintain_order="left")["item"].fill_null(0).to_numpy()
        )
        self._gone: Array = (~own["item_id"].is_in(theirs["item_id"].implode())).to_numpy()
        self.codes: Array = np.full(dataset.n_items, -1, dtype=np.int64)
        self.codes[self.places[~self._gone]] = np.flatnonzero(~self._gone)

    def _config(self) -> dict[str, Any]:
        kind = type(self)
        return {
            "format": FORMAT,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "settings": self.settings.model_dump(mode="json"),
            "keeps_seen": self.keeps_seen,
            "facts": self.facts,
        }


def share_of_repeats(history: History) -> float:
    """Return the share of interactions whose user had interacted with the same item at a strictly earlier time."""
    return 1.0 - len(history.first_touches().items) / max(len(history.items), 1)


def seen_items(history: History, requests: Requests) -> tuple[Array, Array]:
    """Return all interactions of the requests' users strictly before the time of the request: request index (S,) and
    dense item id (S,)."""
    rows, place = rows_and_places(history.count_before(requests.user, requests.time))
    return rows, np.asarray(history.items[history.offsets[requests.user][rows] + place], dtype=np.int64)


def retriever_class(reference: str, where: str = "retrieval.model") -> type[CatalogueRetriever]:
    """Return the class of a retriever by its entry-point name or import path.

    Raises:
        ConfigError: there is no class of this name, or the class is not a retriever.
    """
    # The abstract base is used only to check subclasses and is never instantiated.
    return as_subclass(find_class(reference, GROUP, where), CatalogueRetriever, "a retriever", where)  # type: ignore[type-abstract]
