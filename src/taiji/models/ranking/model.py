"""The multi-task ranker: embeddings, numeric features, target attention, text features, click and conversion heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from taiji.models.ranking.settings import RankerSettings
from taiji.nn.lookup import look_up
from taiji.nn.target_attention import TargetAttention
from taiji.nn.text import Experts, Projection, SelectAlign
from taiji.nn.towers import MixtureOfExperts, SharedBottom

STD = 0.1
"""Spread of fresh embeddings. Smaller ones start slower: attention and products of embeddings begin near zero and stay there."""


@dataclass(frozen=True)
class Sizes:
    """Sizes the data decides: vocabulary lengths, numeric features, and the layout of the feature columns."""

    users: int
    items: int
    levels: tuple[int, int, int]
    profile: int
    profile_columns: int
    numeric: int
    id_slots: int
    id_codes: int
    vector_width: int
    neighbour: bool


class RankerModel(nn.Module):
    """Logits of click and of conversion given a click.

    CTCVR is the product of both probabilities over the whole exposure space (ESMM, Ma et al. 2018, eq. 1–2).
    Numeric features are encoded piecewise linearly by quantiles (Gorishniy et al. 2022, "On Embeddings for Numerical
    Features", eq. 1). A linear path runs beside the tower (Cheng et al. 2016, "Wide & Deep Learning"): what single numbers
    say need not pass through hidden layers. Item and user embeddings are sparse: a step touches only the rows of its batch.
    """

    edges: torch.Tensor
    scales: torch.Tensor
    vector_scales: torch.Tensor
    level_rows: torch.Tensor

    def __init__(self, sizes: Sizes, settings: RankerSettings) -> None:
        super().__init__()
        width = self.width = settings.dimension
        self.sizes, self.settings = sizes, settings
        self.user_embedding = nn.Embedding(sizes.users, width, sparse=True)
        self.item_embedding = nn.Embedding(sizes.items, width, sparse=True)
        self.level_embedding = nn.Embedding(sum(sizes.levels), width)  # one table and one look-up for the three levels
        self.profile_embedding = nn.Embedding(sizes.profile, width)
        for embedding in (self.user_embedding, self.item_embedding, self.profile_embedding, self.level_embedding):
            nn.init.normal_(embedding.weight, std=STD)
        self.register_buffer(
            "level_rows", torch.tensor([0, sizes.levels[0], sizes.levels[0] + sizes.levels[1]]), persistent=False
        )
        item_width = 4 * width
        self.register_buffer("edges", torch.zeros(sizes.numeric, settings.bins + 1))
        self.register_buffer("scales", torch.zeros(2, sizes.numeric))
        self.attention = TargetAttention(item_width, width, settings.attention_heads, settings.history)
        self.neighbour_attention = (
            TargetAttention(item_width, width, settings.attention_heads, settings.neighbour)
            if sizes.neighbour
            else None
        )
        total = sizes.numeric * (settings.bins + 1)
        if settings.embeddings:
            total += width + width + item_width + width + self.attention.out_width
        if self.neighbour_attention is not None:
            total += self.neighbour_attention.out_width
        self.id_embedding = nn.Embedding(1 + sizes.id_slots * sizes.id_codes, width) if sizes.id_slots else None
        if self.id_embedding is not None:
            nn.init.normal_(self.id_embedding.weight, std=STD)
            total += width + width
        self.user_to_item = nn.Linear(width, width, bias=False)
        fields = 2 + sizes.profile_columns
        self.text = text_module(sizes.vector_width, width, fields, settings) if sizes.vector_width else None
        if sizes.vector_width:
            self.register_buffer(
                "vector_scales", torch.stack([torch.zeros(sizes.vector_width), torch.ones(sizes.vector_width)])
            )
        self.text_to_item = (
            nn.Linear(self.text.out_width, width, bias=False) if self.text is not None and self.text.out_width else None
        )
        if self.text is not None and self.text_to_item is not None:
            total += self.text.out_width + width
        self.tower = tower(total, settings)
        self.wide = nn.Linear(total, 2, bias=False)
        nn.init.zeros_(self.wide.weight)

    def encode_numeric(self, numeric: torch.Tensor) -> torch.Tensor:
        """(B, F) to (B, F * (bins + 1)): standardised values, and their piecewise-linear pieces in [0, 1]."""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        pieces = (numeric.unsqueeze(2) - low) / (high - low).clamp_min(1e-6)
        plain = ((numeric - self.scales[0]) / self.scales[1].clamp_min(1e-6)).clamp(-5, 5)
        return torch.cat([plain, pieces.clamp(0, 1).flatten(1)], dim=1)

    def encode_vector(self, vector: torch.Tensor) -> torch.Tensor:
        """(B, D) embeddings, standardised as the numbers are: those of length 1 are otherwise too small to learn from."""
        return ((vector - self.vector_scales[0]) / self.vector_scales[1].clamp_min(1e-6)).clamp(-5, 5)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of a batch.

        Args:
            batch: users (V,) rows and profiles (V, P) rows of the distinct users, user (B,) positions in them; items
                (U, 4) rows of the distinct items (row 0 padding), item (B,) and history (B, L) positions in them; age
                (B, L), numeric (B, F), and where in use neighbour (B, K), ids (B, M), vector (B, D), has_vector (B,).

        Returns:
            (B,) logit of click, (B,) logit of conversion given a click.
        """
        return self.with_penalty(batch)[:2]

    def with_penalty(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`forward`, and the mean over rows of the squared norms of the user's and the target item's own embedding."""
        rows, item = batch["items"], batch["item"]
        items = torch.cat(
            [
                self.item_embedding(rows[:, 0]),
                look_up(self.level_embedding.weight, rows[:, 1:] + self.level_rows).flatten(1),
            ],
            dim=1,
        )
        target = look_up(items, item)
        user = look_up(self.user_embedding(batch["users"]), batch["user"])
        penalty = (user.square().sum() + target[:, : self.width].square().sum()) / len(item)
        profile = look_up(
            look_up(self.profile_embedding.weight, batch["profiles"]).flatten(1), batch["user"]
        ).unflatten(1, (-1, self.width))
        if isinstance(self.text, SelectAlign):
            fields = torch.cat([user.unsqueeze(1), target[:, : self.width].unsqueeze(1), profile], dim=1)
            fields = fields + self.text(self.encode_vector(batch["vector"]), batch["has_vector"], fields)
            user, profile = fields[:, 0], fields[:, 2:]
            target = torch.cat([fields[:, 1], target[:, self.width :]], dim=1)
        pieces = target.view(-1, 4, self.width)
        inputs = [self.encode_numeric(batch["numeric"])]
        if self.settings.embeddings:
            inputs += [user, profile.sum(dim=1), target, self.user_to_item(user) * pieces.sum(dim=1)]
            inputs.append(self.attention(items, item, batch["history"], batch["age"]))
        if self.neighbour_attention is not None:
            inputs.append(self.neighbour_attention(items, item, batch["neighbour"], None))
        if self.id_embedding is not None:
            taste = look_up(self.id_embedding.weight, batch["ids"]).sum(dim=1)
            inputs += [taste, taste * pieces.sum(dim=1)]
        if self.text is not None and self.text_to_item is not None:
            fields = torch.cat([user.unsqueeze(1), pieces[:, :1], profile], dim=1)
            text = self.text(self.encode_vector(batch["vector"]), batch["has_vector"], fields)
            inputs += [text, self.text_to_item(text) * pieces.sum(dim=1)]
        joined = torch.cat(inputs, dim=1)
        logits = self.tower(joined) + self.wide(joined)
        click, conversion = logits[:, 0], logits[:, 1]
        return click, conversion, penalty


def text_module(
    width: int, dimension: int, fields: int, settings: RankerSettings
) -> Projection | Experts | SelectAlign:
    """Make the text module that the settings name, for vectors of a width and a number of field embeddings of ``dimension``."""
    if settings.text == "select_align":
        return SelectAlign(width, dimension, settings.chunks)
    if settings.text == "experts":
        return Experts(width, settings.text_width, dimension, fields)
    return Projection(width, settings.text_width)


def tower(width: int, settings: RankerSettings) -> nn.Module:
    """Make the tower that the settings name."""
    shape = (width, 2, settings.hidden, settings.dropout)
    return SharedBottom(*shape) if settings.tower == "shared" else MixtureOfExperts(*shape, settings.experts)
