"""First layers of ranking networks: embeddings of ids and categories, and encodings of numbers and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taiji.data.field_set import Categories, Layout
from taiji.nn.lookup import look_up

STD = 0.1
"""Standard deviation of initial embeddings. With a smaller value, learning is slow, because attention and products of
embeddings stay near zero for a long time."""
SAMPLE = 100_000
"""Smallest number of evenly spaced rows from which scales and bin edges are computed; fewer than twice this number are
read. If there are fewer rows, all of them are read."""
Batch = dict[str, torch.Tensor]


class CodeTable(nn.Module):
    """Embedding table shared by all category fields of one kind: those of users, of items, or of rows.

    Args:
        categories: numbers of codes of the fields.
        width: width of an embedding.
    """

    offsets: torch.Tensor

    def __init__(self, categories: Categories, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(categories.rows), width)
        self.categories = categories
        self.register_buffer("offsets", torch.tensor(categories.offsets, dtype=torch.int64), persistent=False)

    def reset(self, *, missing: bool) -> None:
        """Draw initial weights. The hashed rows, which stand for values that do not occur in training, start at 0.

        Args:
            missing: True to start the row of the missing value at 0 as well.
        """
        nn.init.normal_(self.table.weight, std=STD)
        starts = np.cumsum([0, *self.categories.rows])[:-1]
        with torch.no_grad():
            for start, hashed in zip(starts, self.categories.hashed):
                self.table.weight[int(start) + (0 if missing else 1) : int(start) + 1 + hashed] = 0

    def for_columns(self, columns: Sequence[int]) -> tuple[CodeTable, list[int]]:
        """Return a view of the table that reads only the given code columns, and the indices of its outputs in the full
        output."""
        made = CodeTable.__new__(CodeTable)
        nn.Module.__init__(made)
        made.table, made.categories = self.table, self.categories
        made.register_buffer("offsets", self.offsets[list(columns)], persistent=False)
        return made, list(columns)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, C, width) of codes (n, C)."""
        return look_up(self.table.weight, codes + self.offsets)


class FieldEmbeddings(nn.Module):
    """Embeddings of users and items and of their categories. They are looked up once per distinct user and item of a
    batch.

    Gradients of the id embeddings are sparse: a training step touches only the ids in its batch.

    Args:
        layout: layout of the inputs.
        width: width of an embedding.
    """

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self.width = width
        self.user = nn.Embedding(layout.users, width, sparse=True)
        self.item = nn.Embedding(layout.items, width, sparse=True)
        self.item_categories = CodeTable(layout.item, width)
        self.user_categories = CodeTable(layout.user, width)
        nn.init.normal_(self.user.weight, std=STD)
        nn.init.normal_(self.item.weight, std=STD)
        self.user_categories.reset(missing=False)
        self.item_categories.reset(missing=False)
        self.row_categories = CodeTable(layout.row, width) if layout.row.width else None
        if self.row_categories is not None:
            self.row_categories.reset(missing=True)
        self.user_columns = layout.user.width
        self.pieces = 1 + layout.item.width
        """Number of embeddings per item: one for its id and one for each of its categories."""

    def items(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings (U, pieces * width) of the batch's distinct items; row 0 is padding."""
        rows = batch["items"]
        return torch.cat([self.item(rows[:, 0]), self.item_categories(rows[:, 1:]).flatten(1)], dim=1)

    def users(self, batch: Batch) -> torch.Tensor:
        """Return the id embedding (B, width) of each row's user."""
        return look_up(self.user(batch["users"]), batch["user"])

    def profile(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings (B, P, width) of the P categories of each row's user."""
        distinct = self.user_categories(batch["user_categories"]).flatten(1)
        return look_up(distinct, batch["user"]).view(-1, self.user_columns, self.width)

    def categories(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings (B, K * width) of each row's K context and user-item categories; K may be 0."""
        if self.row_categories is None:
            return batch["numbers"][:, :0]
        return self.row_categories(batch["categories"]).flatten(1)  # type: ignore[no-any-return]


class NumberEncoding(nn.Module):
    """Encoding of numbers: each standardised number, followed by its piecewise-linear encoding by quantiles (Gorishniy
    et al. 2022, eq. 1).

    Args:
        numbers: number F of inputs.
        bins: number of pieces of each encoding.
    """

    edges: torch.Tensor
    scales: torch.Tensor
    sources: torch.Tensor

    def __init__(self, numbers: int, bins: int) -> None:
        super().__init__()
        self.bins, self.out_width = bins, numbers * (bins + 1)
        self.register_buffer("edges", torch.zeros(numbers, bins + 1))
        self.register_buffer("scales", torch.zeros(2, numbers))
        each = torch.arange(numbers)
        self.register_buffer("sources", torch.cat([each, each.repeat_interleave(bins)]), persistent=False)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the encoding (B, F * (bins + 1)) of numbers (B, F): all standardised values, clipped at five standard
        deviations, followed by all pieces, which are in [0, 1]."""
        if torch.is_inference_mode_enabled():
            return self._in_place(numbers)
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        pieces = (numbers.unsqueeze(2) - low) / (high - low).clamp_min(1e-6)
        plain = ((numbers - self.scales[0]) / self.scales[1].clamp_min(1e-6)).clamp(-5, 5)
        return torch.cat([plain, pieces.clamp(0, 1).flatten(1)], dim=1)

    def _in_place(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the same values as :meth:`forward`, bit for bit, in half the time.

        All output columns are processed together, so that rows are long enough for vector instructions. All operations
        after the first one are in place.
        """
        count, (mean, std) = numbers.shape[1], self.scales
        low = torch.cat([mean, self.edges[:, :-1].flatten()])
        width = torch.cat([std, (self.edges[:, 1:] - self.edges[:, :-1]).flatten()]).clamp_min_(1e-6)
        out = numbers.index_select(1, self.sources).sub_(low).div_(width)
        out[:, :count].clamp_(-5, 5)
        out[:, count:].clamp_(0, 1)
        return out

    def for_columns(self, columns: Sequence[int]) -> tuple[NumberEncoding, list[int]]:
        """Return the encoding of the given numbers only, and the indices of its columns in the full encoding."""
        numbers, chosen = self.edges.shape[0], list(columns)
        made = NumberEncoding(len(chosen), self.bins).to(self.edges)
        made.edges.copy_(self.edges[chosen])
        made.scales.copy_(self.scales[:, chosen])
        pieces = [numbers + column * self.bins + piece for column in chosen for piece in range(self.bins)]
        return made, [*chosen, *pieces]

    def fit(self, values: NDArray[Any]) -> None:
        """Set the scales and bin edges from evenly spaced rows of the training values (N, F)."""
        values = values[:: max(1, len(values) // SAMPLE)].astype(np.float64)
        edges = np.zeros((values.shape[1], self.bins + 1), dtype=np.float32)
        for place, column in enumerate(values.T):
            spread = np.unique(np.quantile(column, np.linspace(0, 1, self.bins + 1)))
            more = np.quantile(np.unique(column), np.linspace(0, 1, self.bins + 3 - len(spread))[1:-1])
            edges[place] = np.sort(np.concatenate([spread, more]))
        self.edges.copy_(torch.from_numpy(edges))
        self.scales.copy_(torch.from_numpy(np.stack([values.mean(axis=0), values.std(axis=0)])))


class VectorScaling(nn.Module):
    """Standardisation of vectors. It is needed because the coordinates of unit-length embeddings are too small to learn
    from.

    Args:
        width: dimension D of a vector.
    """

    scales: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("scales", torch.stack([torch.zeros(width), torch.ones(width)]))

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """Return vectors (B, D) standardised and clipped at five standard deviations."""
        return ((vector - self.scales[0]) / self.scales[1].clamp_min(1e-6)).clamp(-5, 5)

    def fit(self, vectors: NDArray[Any], present: NDArray[Any]) -> None:
        """Set the mean and standard deviation from evenly spaced vectors among those rows of ``vectors`` (N, D) in
        which ``present`` (N,) is not 0."""
        rows = np.flatnonzero(present)
        if len(rows):
            chosen = vectors[rows[:: max(1, len(rows) // SAMPLE)]].astype(np.float64)
            self.scales.copy_(torch.from_numpy(np.stack([chosen.mean(axis=0), chosen.std(axis=0)])))
