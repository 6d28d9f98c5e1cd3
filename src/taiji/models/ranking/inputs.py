"""Conversion of frames, requests and slates into the batches of a network, without a Python loop over rows.

A batch lists its distinct items and users once, and its other inputs index these lists. Embeddings are therefore looked
up and projected once per item, not once per position in a sequence. On a CPU, this saves most of the training time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.field_rows import RowArrays, Rows
from taiji.data.field_set import Arrays, FieldSet
from taiji.data.statistics import PastStatistics, PointInTime
from taiji.data.tasks import Task, labels
from taiji.data.user_subset import UserSubset
from taiji.models.ranking.split_inputs import sides_of
from taiji.models.ranking.split_weights import SplitGraph
from taiji.nn.devices import on_device
from taiji.nn.field_embeddings import Batch

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RequestState:
    """Inputs and network outputs of the request side, computed once per request and reused for its candidates.

    Attributes:
        requests: R requests, each with a user and a time.
        arrays: inputs of the R requests; numbers and categories are only those of user and context.
        statistics: point-in-time statistics of the R requests.
        split: split network whose request step computed ``hoisted``; None if the network is not split.
        hoisted: outputs of the request step, which the candidate step reads; each has one row per request.
    """

    requests: Requests
    arrays: Arrays
    statistics: Mapping[str, Array]
    split: SplitGraph | None = None
    hoisted: tuple[torch.Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.requests)


class Inputs:
    """Conversion of rows of a dataset into network inputs, for fitted fields.

    Args:
        dataset: dataset that defines the dense ids. Its history and past events are read strictly before the time of
            each row.
        fields: fitted fields.
        tasks: tasks whose labels are read.
        device: device of the tensors.
        statistics: source of point-in-time statistics; None for the dataset's own log.
    """

    def __init__(
        self,
        dataset: Dataset,
        fields: FieldSet,
        tasks: Sequence[Task],
        device: str = "cpu",
        statistics: PastStatistics | None = None,
    ) -> None:
        self.dataset, self.fields, self.tasks, self.device = dataset, fields, tasks, device
        self.statistics = statistics
        self.known_until: Mapping[str, int] = {}
        """Time (microseconds) of the last row whose label is known, by task. Set only while rows are read in chunks."""
        self._categories = bool(fields.layout.row.width)
        self.item_codes = fields.item_codes(dataset)
        self.user_codes = fields.user_codes(dataset)
        self._place = np.empty(len(self.item_codes), dtype=np.int64)

    def bound_to(self, users: Dataset, statistics: PastStatistics) -> Inputs:
        """Return inputs for a dataset with other users and the same items. The encoded items are shared, not recomputed.

        Objects from different calls may be used in different threads at the same time.
        """
        made = Inputs.__new__(Inputs)
        made.__dict__.update(
            self.__dict__,
            dataset=users,
            statistics=statistics,
            user_codes=self._user_codes(users),
            _place=np.empty(len(self.item_codes), dtype=np.int64),
        )
        return made

    def _user_codes(self, users: Dataset) -> Array:
        if isinstance(users, UserSubset) and users.base is self.dataset:
            return self.fields.subset_codes(users, self.user_codes)
        return self.fields.user_codes(users)

    def arrays(self, frame: pl.DataFrame) -> Arrays:
        """Return the arrays of exposures.

        Args:
            frame: columns user, item and time (microseconds), and optionally labels, context and features.
        """
        grouped = any(task.kind == "pairwise" for task in self.tasks)
        return self.fields.arrays(
            Rows(self.dataset, frame, self.statistics), labels(frame, self.tasks, self.known_until), grouped=grouped
        )

    def batch(self, arrays: Arrays, index: Array | slice) -> Batch:
        """Return the network's inputs for the given rows; see :class:`taiji.models.ranking.ranking_network.Network`."""
        return self._batch(arrays.take(index, labels=False))

    def state(self, requests: Requests) -> RequestState:
        """Return the request-side inputs: sequences, features, and the numbers and categories of user and context."""
        if len(requests) and not (requests.user.min() >= 0 and requests.user.max() < self.dataset.n_users):
            raise InputError(
                "The user of a request is not in the dataset.",
                where="requests",
                expected=f"dense ids below {self.dataset.n_users}",
                found=f"{requests.user.min()} to {requests.user.max()}",
            )
        columns: dict[str, Callable[[], pl.Series]] = {
            name: partial(_series, name, values) for name, values in requests.columns.items()
        }
        rows = RowArrays(
            self.dataset,
            requests.user,
            np.zeros(len(requests), np.int64),
            requests.time,
            columns,
            requests.columns,
            self.statistics,
        )
        return RequestState(requests, self.fields.arrays(rows, {}, sides=("user", "context")), rows.statistics)

    def candidates(self, state: RequestState, slate: Slate, chosen: slice) -> Batch:
        """Return the network's inputs for a slice of the requests: one row per slate position, request by request.

        Padding is scored as if it were item 0.
        """
        base, times = state.arrays.take(chosen), slate.items.shape[1]
        pair = self._pairs(state, slate, chosen)

        def spread(values: Array) -> Array:
            return np.repeat(values, times, axis=0)

        own, theirs = iter(spread(base.numbers).T), iter(pair.numbers.T)
        numbers = [
            next(own if field.side in ("user", "context") else theirs)
            for field in self.fields.numbers
            for _ in field.labels
        ]
        own, theirs = iter(spread(base.categories).T), iter(pair.categories.T)
        categories = [
            next(own if field.side == "context" else theirs)
            for field in self.fields.categories("context", "pair")
            for _ in range(field.columns)
        ]
        return self._batch(
            Arrays(
                user=pair.user,
                item=pair.item,
                numbers=np.stack(numbers, axis=1) if numbers else pair.numbers,
                categories=np.stack(categories, axis=1) if categories else pair.categories,
                sequences=base.sequences,
                ages=base.ages,
                codes={name: spread(values) for name, values in base.codes.items()},
                vectors={name: spread(values) for name, values in base.vectors.items()},
                present={name: spread(values) for name, values in base.present.items()},
                labels={},
            )
        )

    def _pairs(self, state: RequestState, slate: Slate, chosen: slice) -> Arrays:
        """Return arrays of the item and pair fields for a slice of the requests, with one row per slate position."""
        items = np.where(slate.items == NO_ITEM, 0, slate.items)[chosen]
        requests = state.requests.take(chosen)
        owner = np.repeat(np.arange(len(requests)), items.shape[1])
        lists = {field.name for field in (*self.fields.codes, *self.fields.sequences, *self.fields.vectors)}
        further: dict[str, Callable[[], pl.Series]] = {
            name: partial(_gathered, name, values, owner)
            for name, values in requests.columns.items()
            if name not in lists  # list columns are read by fields of the user, not of items or pairs
        }
        of_slate = {name: _flat(values[chosen]) for name, values in slate.columns.items()}
        further |= {name: partial(_series, name, values) for name, values in of_slate.items()}
        known = state.statistics.spread(items, chosen) if isinstance(state.statistics, PointInTime) else None
        user, time = requests.user[owner], requests.time[owner]
        rows = RowArrays(self.dataset, user, items.ravel(), time, further, of_slate, self.statistics, known)
        return self.fields.arrays(rows, {}, sides=("item", "pair"))

    def request_side(self, arrays: Arrays) -> Batch:
        """Return the request's split inputs; see :class:`taiji.models.ranking.graph_colours.Sides`.

        Args:
            arrays: one row per request; numbers and categories are only those of user and context.
        """
        distinct = self._distinct(list(arrays.sequences.values()))
        out = {"request_items": self.item_codes[distinct], "request_numbers": arrays.numbers, **self._users(arrays)}
        if self._categories:
            out["request_categories"] = arrays.categories.astype(np.int64)
        return self._tensors(out)

    def candidate_side(self, state: RequestState, slate: Slate, chosen: slice) -> Batch:
        """Return the candidates' split inputs for a slice of the requests, with one row per slate position."""
        return self._items(self._pairs(state, slate, chosen))

    def split_batch(self, arrays: Arrays) -> Batch:
        """Return all split inputs, for requests with one candidate each."""
        columns = sides_of(self.fields).columns
        sides = []
        for own in (True, False):
            kept = {
                name: [n for n in range(values.shape[1]) if (n in columns.get(name, ())) == own]
                for name, values in (("numbers", arrays.numbers), ("categories", arrays.categories))
            }
            sides.append(
                replace(
                    arrays,
                    numbers=arrays.numbers[:, kept["numbers"]],
                    categories=arrays.categories[:, kept["categories"]],
                )
            )
        return {**self.request_side(sides[0]), **self._items(sides[1])}

    def _items(self, arrays: Arrays) -> Batch:
        distinct = self._distinct([arrays.item])
        out = {"items": self.item_codes[distinct], "item": self._place[arrays.item], "numbers": arrays.numbers}
        if self._categories:
            out["categories"] = arrays.categories.astype(np.int64)
        return self._tensors(out)

    def _batch(self, arrays: Arrays) -> Batch:
        distinct = self._distinct([arrays.item, *arrays.sequences.values()])
        out = {
            "items": self.item_codes[distinct],
            "item": self._place[arrays.item],
            "numbers": arrays.numbers,
            **self._users(arrays),
        }
        if arrays.categories.shape[1]:
            out["categories"] = arrays.categories.astype(np.int64)
        return self._tensors(out)

    def _users(self, arrays: Arrays) -> dict[str, Array]:
        """Return the inputs from users, sequences, codes and vectors. Sequences index the list of distinct items."""
        users, user = np.unique(arrays.user, return_inverse=True)
        codes = self.user_codes[users]
        out = {"users": codes[:, 0], "user_categories": codes[:, 1:], "user": user}
        out |= {name: self._place[items] for name, items in arrays.sequences.items()}
        out |= {f"{name}_age": ages.astype(np.float32) for name, ages in arrays.ages.items()}
        for field in self.fields.codes:
            found = arrays.codes[field.name]
            first = 1 + np.arange(field.slots, dtype=np.int32) * field.values
            out[field.name] = np.where(found < 0, 0, found + first).astype(np.int64)
        for name, values in arrays.vectors.items():
            out[name], out[f"{name}_present"] = values, arrays.present[name]
        return out

    def _tensors(self, out: Mapping[str, Array]) -> Batch:
        return {name: on_device(value, self.device) for name, value in out.items()}

    def _distinct(self, wanted: Sequence[Array]) -> Array:
        """Return the distinct items, padding first.

        After the call, ``self._place[item]`` is the index of an item in the returned list. Item −1 has the index of the
        padding.
        """
        seen = np.zeros(len(self.item_codes), dtype=bool)
        for items in wanted:
            seen[items] = True
        seen[-1] = False
        distinct = np.concatenate([[len(self.item_codes) - 1], np.flatnonzero(seen)])
        self._place[distinct] = np.arange(len(distinct))
        return distinct


def _flat(values: Array) -> Array:
    """Reshape (R, M, …) to (R * M, …)."""
    return values.reshape(-1, *values.shape[2:])


def _gathered(name: str, values: Array, owner: Array) -> pl.Series:
    """Return a column of requests with one row per candidate."""
    return _series(name, values).gather(owner)


def _series(name: str, values: Array) -> pl.Series:
    """Return an array as a column: a column of numbers for shape (B,), a column of lists for shape (B, n)."""
    made = pl.Series(name, values.tolist() if values.dtype == object else values)
    return made.arr.to_list() if isinstance(made.dtype, pl.Array) else made
