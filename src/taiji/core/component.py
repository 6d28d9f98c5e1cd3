"""Contracts of the request path: what moves between components, and what each kind of component promises.

Everything that moves is a frozen dataclass of numpy arrays. Users and items are dense ids of the dataset that a component
is bound to, times are microseconds since the epoch. ``taiji.testing`` checks the promises.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError

Array = NDArray[Any]
Device = Literal["auto", "cpu", "cuda"]
NO_ITEM = -1
"""Padding of item arrays."""
Data = TypeVar("Data", contravariant=True)


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests: a user and a time each, with the context of the request.

    Attributes:
        user: (B,) int64 dense user ids.
        time: (B,) int64; a component reads nothing at or after a request's time.
        columns: context of each request by name (scenario, network, load, …), (B,) or (B, …) each.
    """

    user: Array
    time: Array
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", np.asarray(self.user, dtype=np.int64))
        object.__setattr__(self, "time", np.asarray(self.time, dtype=np.int64))
        object.__setattr__(self, "columns", {name: np.asarray(values) for name, values in self.columns.items()})
        taken = [name for name in self.columns if name in ("user", "item", "time", "event")]
        if taken:
            raise InputError(
                "A context column would replace who asks and when.", where="requests", found=", ".join(taken)
            )
        _same_length("requests", {"user": self.user, "time": self.time, **self.columns})

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: Array | slice) -> Requests:
        """Return the requests at ``index``."""
        return Requests(self.user[index], self.time[index], {k: v[index] for k, v in self.columns.items()})


@dataclass(frozen=True, eq=False)
class Slate:
    """Candidates of each request, best first, or the list to show, first place first.

    Attributes:
        items: (B, M) int64 dense item ids, padded with :data:`NO_ITEM` behind the last one.
        scores: (B, M) float64 from the component that made the slate; 0 where it gives none.
        source: (B, M) int64, which retriever an item came from; 0 where there is only one.
        columns: further (B, M, …) arrays by name, carried along.
    """

    items: Array
    scores: Array | None = None
    source: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items = np.asarray(self.items, dtype=np.int64)
        if items.ndim != 2:
            raise InputError("A slate's items are not a matrix.", expected="shape (B, M)", found=f"shape {items.shape}")
        object.__setattr__(self, "items", items)
        for name, kind in (("scores", np.float64), ("source", np.int64)):
            values = getattr(self, name)
            values = np.zeros(items.shape, kind) if values is None else np.asarray(values, dtype=kind)
            object.__setattr__(self, name, values)
        for name, values in {"scores": self.scores, "source": self.source, **self.columns}.items():
            if values is not None and values.shape[:2] != items.shape:
                raise InputError(
                    "A slate's columns differ in shape.",
                    where=name,
                    expected=f"{items.shape}, as items",
                    found=f"{values.shape}",
                )

    @property
    def mask(self) -> Array:
        """(B, M) bool: the places that hold an item."""
        return self.items != NO_ITEM

    def first(self, k: int) -> Slate:
        """Return the slate's first ``k`` places."""
        width = min(k, self.items.shape[1])
        return self.take(np.broadcast_to(np.arange(width), (len(self.items), width)))

    def kept(self, places: Array) -> Slate:
        """Return the items at which ``places (B, M)`` is True, in their order, padding behind them."""
        there = places & self.mask
        order = np.argsort(~there, axis=1, kind="stable")
        return self.take(order).where(np.take_along_axis(there, order, axis=1))

    def where(self, there: Array) -> Slate:
        """Return the slate with padding in place of the items at which ``there (B, M)`` is False."""
        assert self.scores is not None and self.source is not None
        return replace(
            self,
            items=np.where(there, self.items, NO_ITEM),
            scores=np.where(there, self.scores, 0.0),
            source=np.where(there, self.source, 0),
        )

    def take(self, places: Array) -> Slate:
        """Return the slate reordered to the places ``(B, K)`` of each request, every column alike."""
        rows = np.arange(len(self.items))[:, None]
        assert self.scores is not None and self.source is not None
        columns = {name: values[rows, places] for name, values in self.columns.items()}
        return replace(
            self,
            items=self.items[rows, places],
            scores=self.scores[rows, places],
            source=self.source[rows, places],
            columns=columns,
        )


Predictions = Mapping[str, Array]
"""Task name to (B, M) float64, aligned with a slate; what stands at its padding means nothing."""


class State(Protocol):
    """Request side of a scorer, computed once for all candidates."""

    def __len__(self) -> int:
        """Return the number of requests."""


S = TypeVar("S", bound=State)
K = TypeVar("K")


@runtime_checkable
class Component(Protocol[Data]):
    """Part of a recommender that can be fitted, saved and loaded. Data is the dataset's class."""

    @property
    def version(self) -> str:
        """Hash of weights and settings."""

    def save(self, folder: str | Path) -> None:
        """Write safetensors and JSON, atomically; equal components give equal bytes."""

    @classmethod
    def load(cls, folder: str | Path, dataset: Data) -> Self:
        """Read what :meth:`save` wrote and bind it to a dataset, the same one or a later one with more users and items."""


class Retriever(Protocol):
    """Finder of candidates: no item twice, none that is unavailable at the request's time, the same answer each time."""

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return at most ``k`` candidates per request, best first."""


class Scorer(Protocol[S]):
    """Predictor of tasks for candidates.

    Permuting candidates permutes the predictions, scoring in pieces equals scoring at once, and the request side is
    computed in :meth:`encode` alone.
    """

    def encode(self, requests: Requests) -> S:
        """Return what is known about each request whatever the candidates."""

    def score(self, state: S, slate: Slate) -> Predictions:
        """Return every task's prediction for every place of the slate."""


class ItemCoder(Protocol):
    """Maker of item codes (semantic ids). Codes of a version never change."""

    def encode(self, items: Array) -> Array:
        """Return codes (N, L) of items (N,)."""

    def decode(self, codes: Array) -> list[Array]:
        """Return, for each row of (N, L) codes, the items that have it: none, one, or several on a collision."""

    def quality(self) -> Mapping[str, float]:
        """Return collisions counted by item, code use and whatever else tells a good code from a bad one."""


class Debiaser(Protocol):
    """Correction of predictions for the conditions under which they were learnt."""

    def adjust(self, predictions: Predictions, requests: Requests) -> Predictions:
        """Return predictions of the same tasks and shapes; monotone in the given ones where it says so."""


class Fuser(Protocol):
    """Combiner of the tasks' predictions into one score."""

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return (B, M) scores; monotone in the predictions where it says so."""


class ListGenerator(Protocol):
    """Proposer of lists, from the candidates only and none of them twice."""

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return (B, K, L) places in the slate."""


class ListEvaluator(Protocol):
    """Evaluator of whole lists."""

    def score(self, requests: Requests, slate: Slate, lists: Array) -> Array:
        """Return (B, K) scores of the lists (B, K, L), places in the slate."""


class Reranker(Protocol):
    """Maker of the list that is shown."""

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return ``length`` of the slate's items per request (fewer where there are fewer), none twice, in their order."""


class Policy(Protocol):
    """Actor in a world; raises :class:`~taiji.core.errors.InputError` for an action outside the action space."""

    def act(self, observation: Array) -> Array:
        """Return the action for each observation."""


def find_class(reference: str, group: str, where: str) -> Any:
    """Return the class or function that a reference names.

    Args:
        reference: ``package.module:Name``, or the name of an entry point.
        group: entry-point group, as ``taiji.rankers``; other packages add to it in their own metadata.
        where: the setting that holds the reference, for messages.

    Raises:
        ConfigError: nothing has that name, or importing it fails.
    """
    module, colon, name = reference.partition(":")
    known = entry_points(group=group)
    try:
        if colon:
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        if reference in known.names:
            return known[reference].load()
    except Exception as error:  # whatever a module of somebody else raises while it is imported
        raise ConfigError(
            "Could not import what a setting names.",
            where=where,
            expected=f"package.module:Name, importable from here, or one of {', '.join(sorted(known.names))}",
            found=f"{reference} ({type(error).__name__}: {error})",
            fix="check the spelling, and that its package is installed in this environment",
        ) from error
    raise ConfigError(
        "No component has that name.",
        where=where,
        expected=f"package.module:Name, or one of {', '.join(sorted(known.names)) or '(none installed)'}",
        found=reference,
        fix=f"name it as package.module:Name, or install the package that provides it ({group})",
    )


def as_subclass(
    found: object, base: type[K], noun: str, where: str, *, path: str = "", fix: str | None = None
) -> type[K]:
    """Return what :func:`find_class` found, where it is a subclass.

    Args:
        found: whatever a setting names. base: base of such classes. noun: with its article, for messages. where: the setting.
        path: where people import the base from, if not from the module that defines it. fix: what to do about it.

    Raises:
        ConfigError: it is something else.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"What a setting names is not {noun}.",
            where=where,
            expected=f"a subclass of {path or f'{base.__module__}.{base.__qualname__}'}",
            found=f"{found!r} ({type(found).__name__})",
            fix=fix,
        )
    return found


def foreign_code(values: Any) -> dict[str, str]:
    """Return the code of other packages that settings name: reference to the hash of its module's file.

    Args:
        values: settings as JSON; a text in them is a reference where it is ``package.module:Name`` of a module that can be
            found, or the name of an entry point in one of taiji's groups. Nothing is imported but parent packages.
    """
    texts = set(_texts(values))
    modules = {text: text.partition(":")[0] for text in texts if REFERENCE.fullmatch(text)}
    for group in GROUPS:
        for point in entry_points(group=group):
            if any(text == point.name or text.startswith(f"{point.name}:") for text in texts):
                modules[f"{group}:{point.name}"] = point.module
    found = {}
    for reference, module in sorted(modules.items()):
        if module.partition(".")[0] != "taiji" and (file := _file_of(module)) is not None:
            found[reference] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return found


GROUPS = (
    "taiji.coders",
    "taiji.fields",
    "taiji.fusers",
    "taiji.mechanisms",
    "taiji.rankers",
    "taiji.rerankers",
    "taiji.retrievers",
    "taiji.stages",
    "taiji.sources",
)
"""Entry-point groups in which other packages name their parts."""
REFERENCE = re.compile(r"\A[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _texts(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return file if file is not None and file.is_file() else None


def pick_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` where torch finds no CUDA device.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if there else "cpu"
    if device == "cuda" and not there:
        raise ConfigError(
            "There is no CUDA device.",
            where="device",
            expected="a GPU that this PyTorch can use",
            found=f"torch {torch.__version__} without one",
            fix="use device: cpu, or auto",
        )
    return device


def _same_length(what: str, columns: Mapping[str, Array]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"Columns of {what} differ in length.",
            expected="one length",
            found=", ".join(f"{name} {length}" for name, length in lengths.items()),
        )
