"""Interfaces of the request path: the data passed between components, and the contract of each kind of component.

Data is passed as frozen dataclasses of numpy arrays. Users and items are dense ids of the dataset to which a component
is bound, and times are microseconds since the epoch. ``taiji.testing`` checks the contracts.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.core.registered import entry_points

Array = NDArray[Any]
Device = Literal["auto", "cpu", "cuda"]
NO_ITEM = -1
"""Padding value in arrays of items."""
Data = TypeVar("Data", contravariant=True)


@dataclass(frozen=True, eq=False)
class Requests:
    """Batch of requests, each with a user, a time and a context.

    Attributes:
        user: dense user ids, (B,) int64.
        time: times of the requests, (B,) int64. A component uses only data strictly before the time of a request.
        columns: context columns (scenario, network, load, …) by name, (B,) or (B, …) each.
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
                "A context column has a reserved name.",
                where="requests",
                expected="names other than user, item, time and event",
                found=", ".join(taken),
            )
        _same_length("requests", {"user": self.user, "time": self.time, **self.columns})

    def __len__(self) -> int:
        return len(self.user)

    @property
    def same_user(self) -> Array:
        """User numbers (B,) that do not change between batches, for reproducible draws.

        Here they are ``user``. A service overrides this property, because it renumbers the users in every batch.
        """
        return self.user

    def take(self, index: Array | slice) -> Requests:
        """Return the requests at ``index``."""
        return Requests(self.user[index], self.time[index], {k: v[index] for k, v in self.columns.items()})


@dataclass(frozen=True, eq=False)
class Slate:
    """Candidates of each request, best first, or the lists to show.

    Attributes:
        items: dense item ids, (B, M) int64. Each row is padded at its end with :data:`NO_ITEM`.
        scores: scores given by the component that made the slate, (B, M) float64; zeros if it gives none.
        source: index of the retriever that found each item, (B, M) int64; 0 with a single retriever.
        columns: further arrays by name, (B, M, …) each, which are kept aligned with the items.
    """

    items: Array
    scores: Array | None = None
    source: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items = np.asarray(self.items, dtype=np.int64)
        if items.ndim != 2:
            raise InputError(
                "The items of a slate are not a matrix.", expected="shape (B, M)", found=f"shape {items.shape}"
            )
        object.__setattr__(self, "items", items)
        for name, kind in (("scores", np.float64), ("source", np.int64)):
            values = getattr(self, name)
            values = np.zeros(items.shape, kind) if values is None else np.asarray(values, dtype=kind)
            object.__setattr__(self, name, values)
        for name, values in {"scores": self.scores, "source": self.source, **self.columns}.items():
            if values is not None and values.shape[:2] != items.shape:
                raise InputError(
                    "The columns of a slate have different shapes.",
                    where=name,
                    expected=f"{items.shape}, as items",
                    found=f"{values.shape}",
                )

    @property
    def mask(self) -> Array:
        """Mask (B, M) of the positions that hold an item."""
        return self.items != NO_ITEM

    def first(self, k: int) -> Slate:
        """Return the first ``k`` positions of the slate."""
        width = min(k, self.items.shape[1])
        return self.take(np.broadcast_to(np.arange(width), (len(self.items), width)))

    def kept(self, places: Array) -> Slate:
        """Return the items where the mask ``places (B, M)`` is True, in their order, followed by padding."""
        occupied = places & self.mask
        order = np.argsort(~occupied, axis=1, kind="stable")
        return self.take(order).where(np.take_along_axis(occupied, order, axis=1))

    def where(self, there: Array) -> Slate:
        """Return the slate with padding where the mask ``there (B, M)`` is False."""
        assert self.scores is not None and self.source is not None
        return replace(
            self,
            items=np.where(there, self.items, NO_ITEM),
            scores=np.where(there, self.scores, 0.0),
            source=np.where(there, self.source, 0),
        )

    def take(self, places: Array) -> Slate:
        """Return the slate (B, K) of the items at the positions ``places (B, K)`` of each request, with all columns."""
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
"""Predictions by task name, (B, M) float64 each, aligned with a slate. Values at the padding are meaningless."""


class State(Protocol):
    """Values that a scorer computes from the requests alone, once for all candidates."""

    def __len__(self) -> int:
        """Return the number of requests."""


S = TypeVar("S", bound=State)
K = TypeVar("K")


@runtime_checkable
class Component(Protocol[Data]):
    """Part of a recommender that can be fitted, saved and loaded. ``Data`` is the class of the dataset."""

    @property
    def version(self) -> str:
        """Hash of weights and settings."""

    def save(self, folder: str | Path) -> None:
        """Write safetensors and JSON atomically. Equal components give equal bytes."""

    @classmethod
    def load(cls, folder: str | Path, dataset: Data) -> Self:
        """Load a component that :meth:`save` wrote, and bind it to a dataset: the original one, or a later one with
        more users and items.
        """


class Retriever(Protocol):
    """Component that finds candidates. It is deterministic, and returns no item twice and no item that is unavailable
    at the time of the request."""

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return at most ``k`` candidates per request, best first."""


class Scorer(Protocol[S]):
    """Component that predicts every task, such as click or purchase, for every candidate.

    Permuting the candidates permutes the predictions in the same way. Scoring the candidates in several calls gives the
    same predictions as in one call. What depends only on the requests is computed only in :meth:`encode`.
    """

    def encode(self, requests: Requests) -> S:
        """Compute the part of the scores that depends only on the requests."""

    def score(self, state: S, slate: Slate) -> Predictions:
        """Return the prediction of every task for every position of the slate."""


class ItemCoder(Protocol):
    """Component that makes item codes (semantic ids). The codes of a version never change."""

    def encode(self, items: Array) -> Array:
        """Return the codes (N, L) of items (N,)."""

    def decode(self, codes: Array) -> list[Array]:
        """Return, for each of the codes (N, L), the items with this code: none, one, or several after a collision."""

    def quality(self) -> Mapping[str, float]:
        """Return metrics of the quality of the codes, such as the share of colliding items and the code usage."""


class Debiaser(Protocol):
    """Component that corrects predictions for biases of the training data."""

    def adjust(self, predictions: Predictions, requests: Requests) -> Predictions:
        """Return corrected predictions of the same tasks and shapes.

        They are monotone in the given predictions if the component declares this.
        """


class Fuser(Protocol):
    """Component that combines the predictions of tasks into one score."""

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M). They are monotone in the predictions if the component declares this."""


@runtime_checkable
class DatasetFuser(Fuser, Protocol):
    """Fuser that looks up columns of users or items in a dataset."""

    def bound_to(self, dataset: Any) -> Fuser:
        """Return a copy that looks up the columns in another dataset, such as a service's dataset of live users."""


class ListGenerator(Protocol):
    """Component that proposes lists of candidates without repeated items."""

    def propose(self, requests: Requests, slate: Slate, lists: int, length: int) -> Array:
        """Return lists as positions in the slate, (B, K, L)."""


class ListEvaluator(Protocol):
    """Component that scores whole lists."""

    def score(self, requests: Requests, slate: Slate, lists: Array) -> Array:
        """Return the scores (B, K) of lists given as positions in the slate, (B, K, L)."""


class Reranker(Protocol):
    """Component that makes the list to show."""

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return the ordered list of each request: ``length`` items of the slate (or all, if there are fewer) without
        repetition."""


class Policy(Protocol):
    """Policy in a simulated world. An action outside the action space raises :class:`~taiji.core.errors.InputError`."""

    def act(self, observation: Array) -> Array:
        """Return the action for each observation."""


def find_class(reference: str, group: str, where: str) -> Any:
    """Import and return the class or function that a reference names.

    Args:
        reference: ``package.module:Name``, or the name of an entry point.
        group: entry-point group, such as ``taiji.rankers``, to which other packages add entry points in their metadata.
        where: setting that contains the reference, for messages.

    Raises:
        ConfigError: nothing has this name, or its import fails.
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
    except Exception as error:  # a module of another package may raise any exception while it is imported
        raise ConfigError(
            "A component named in a setting could not be imported.",
            where=where,
            expected=f"an importable package.module:Name, or one of {', '.join(sorted(known.names))}",
            found=f"{reference} ({type(error).__name__}: {error})",
            fix="check the spelling, and that the package is installed in this environment",
        ) from error
    raise ConfigError(
        "No component has this name.",
        where=where,
        expected=f"package.module:Name, or one of {', '.join(sorted(known.names)) or '(none installed)'}",
        found=reference,
        fix=f"name it as package.module:Name, or install the package that provides it ({group})",
    )


def as_subclass(
    found: object, base: type[K], noun: str, where: str, *, path: str = "", fix: str | None = None
) -> type[K]:
    """Return the result of :func:`find_class` if it is a subclass of a base class.

    Args:
        found: object that a setting names.
        base: required base class.
        noun: description of the required class with an article, for messages.
        where: name of the setting, for messages.
        path: public import path of the base class; by default the module that defines it.
        fix: advice for the error.

    Raises:
        ConfigError: the object is not such a class.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"The object named in a setting is not {noun}.",
            where=where,
            expected=f"a subclass of {path or f'{base.__module__}.{base.__qualname__}'}",
            found=f"{found!r} ({type(found).__name__})",
            fix=fix,
        )
    return found


def foreign_code(values: Any) -> dict[str, str]:
    """Return the references in settings to code of other packages, each with the hash of its module file.

    Args:
        values: settings as JSON. A text in them is a reference if it is ``package.module:Name`` of an existing module,
            or the name of an entry point in one of :data:`GROUPS` (a colon and more text may follow). The module itself
            is not imported, only its parent packages.
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
"""Entry-point groups of the components that the settings of stages can name."""
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
    """Resolve ``auto``, ``cpu`` or ``cuda`` to ``cpu`` or ``cuda``.

    Raises:
        ConfigError: the device is ``cuda`` but torch finds no CUDA device.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
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
            f"Columns of {what} have different lengths.",
            expected="equal lengths",
            found=", ".join(f"{name} {length}" for name, length in lengths.items()),
        )
