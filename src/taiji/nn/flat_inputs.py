"""Concatenation of all inputs of a layout to one vector per row, for networks that treat all inputs alike."""

from __future__ import annotations

import torch
from torch import nn

from taiji.data.field_set import Arrays, Layout
from taiji.nn.field_embeddings import STD, Batch, FieldEmbeddings, NumberEncoding, VectorScaling
from taiji.nn.lookup import look_up
from taiji.nn.per_request import spread


class FlatInputs(nn.Module):
    """Module that concatenates embedded ids and categories, encoded numbers, embedded quantiser codes, projected
    vectors, and averaged sequences.

    Args:
        layout: layout of the inputs.
        width: width of an embedding and of a projected vector.
        bins: number of pieces in the encoding of each number.
        pooled: True to include the averages of sequences; False if the network reads the sequences itself.
    """

    def __init__(self, layout: Layout, width: int, bins: int, *, pooled: bool) -> None:
        super().__init__()
        self.embeddings = FieldEmbeddings(layout, width)
        self.numbers = NumberEncoding(len(layout.numbers), bins)
        self.codes = nn.ModuleDict({name: nn.Embedding(1 + s * v, width) for name, (s, v) in layout.codes.items()})
        for table in self.codes.values():
            nn.init.normal_(table.weight, std=STD)  # type: ignore[arg-type]
        self.scaling = nn.ModuleDict({name: VectorScaling(length) for name, length in layout.vectors.items()})
        self.project = nn.ModuleDict({name: nn.Linear(length, width) for name, length in layout.vectors.items()})
        self.sequences = tuple(layout.sequences) if pooled else ()
        self.item_width = self.embeddings.pieces * width
        parts = 2 + layout.row.width + len(self.codes) + len(self.project)  # user, profile, …
        self.out_width = self.numbers.out_width + parts * width + (1 + len(self.sequences)) * self.item_width

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the inputs (B, out_width), the embeddings of the distinct items (U, item_width), and an L2 penalty.

        The penalty is the mean over rows of the squared norms of the row's user and item id embeddings.
        """
        embed, item = self.embeddings, batch["item"]
        items, user = embed.items(batch), embed.users(batch)
        target = look_up(items, item)
        penalty = (user.square().sum() + target[:, : embed.width].square().sum()) / item.shape[0]
        parts = [self.numbers(batch["numbers"]), user, embed.profile(batch).sum(dim=1), target, embed.categories(batch)]
        parts += [look_up(table.weight, batch[name]).sum(dim=1) for name, table in self.codes.items()]  # type: ignore[arg-type]
        for name, project in self.project.items():
            parts.append(project(self.scaling[name](batch[name])) * batch[f"{name}_present"].unsqueeze(1))
        parts += [averaged(items, batch[name], item) for name in self.sequences]
        return torch.cat(parts, dim=1), items, penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.numbers.fit(arrays.numbers)
        for name, scaling in self.scaling.items():
            assert isinstance(scaling, VectorScaling)
            scaling.fit(arrays.vectors[name], arrays.present[name])


def averaged(items: torch.Tensor, sequence: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """Return the mean embedding (B, width) of each row's sequence; 0 for an empty sequence.

    Args:
        items: (U, width) embeddings of the distinct items; row 0 is padding.
        sequence: (R, L) indices into ``items``, one sequence per request.
        item: (B,) index of each row's item. Each request has B / R adjacent rows.
    """
    there = (sequence > 0).to(items.dtype)
    total = (look_up(items, sequence) * there.unsqueeze(2)).sum(dim=1)
    mean = total / there.sum(dim=1, keepdim=True).clamp_min(1)
    return spread(mean, item)
