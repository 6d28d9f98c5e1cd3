"""Default ranking model: embeddings, numbers, target attention, text features, a wide path, and one head per task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import polars as pl
import torch
from torch import nn

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, Layout
from taiji.data.fields import Field
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import RankerSettings
from taiji.nn.field_embeddings import STD, Batch, FieldEmbeddings, NumberEncoding, VectorScaling
from taiji.nn.lookup import look_up
from taiji.nn.sequence_attention import TargetAttention
from taiji.nn.text import Experts, Projection
from taiji.nn.towers import MixtureOfExperts, SharedBottom

log = logging.getLogger(__name__)


class TargetAttentionNetwork(Network[RankerSettings]):
    """Network that feeds embeddings, numbers and attended sequences to a tower and, in parallel, to a linear path.

    The linear path (Cheng et al. 2016, "Wide & Deep Learning") connects each input directly to the outputs. With the
    tasks click and conversion, CTCVR is the product of both probabilities, learnt on all exposures (ESMM, Ma et al.
    2018, eq. 1–2).
    """

    def __init__(self, layout: Layout, outputs: int, settings: RankerSettings) -> None:
        super().__init__(layout, outputs, settings)
        width = settings.dimension
        self.embeddings = FieldEmbeddings(layout, width)
        self.numbers = NumberEncoding(len(layout.numbers), settings.bins)
        pieces = self.embeddings.pieces
        item_width = pieces * width
        self.attention = nn.ModuleDict(
            {
                name: TargetAttention(item_width, width, settings.attention_heads, length)
                for name, (length, _) in layout.sequences.items()
            }
        )
        total = self.numbers.out_width
        if settings.embeddings:
            total += width + width + item_width + width
        total += sum(int(module.out_width) for module in self.attention.values())  # type: ignore[arg-type, misc]
        self.codes = nn.ModuleDict(
            {name: nn.Embedding(1 + slots * values, width) for name, (slots, values) in layout.codes.items()}
        )
        for table in self.codes.values():
            nn.init.normal_(table.weight, std=STD)  # type: ignore[arg-type]
            total += width + width
        self.user_to_item = nn.Linear(width, width, bias=False)
        fields = 2 + layout.user.width
        self.text = nn.ModuleDict(
            {name: text_module(length, width, fields, settings) for name, length in layout.vectors.items()}
        )
        self.scaling = nn.ModuleDict({name: VectorScaling(length) for name, length in layout.vectors.items()})
        self.text_to_item = nn.ModuleDict(
            {
                name: nn.Linear(module.out_width, width, bias=False)  # type: ignore[arg-type]
                for name, module in self.text.items()
                if module.out_width
            }
        )
        for name in self.text_to_item:
            total += int(self.text[name].out_width) + width  # type: ignore[arg-type]
        total += layout.row.width * width
        self.tower = tower(total, outputs, settings)
        self.wide = nn.Linear(total, outputs, bias=False)
        nn.init.zeros_(self.wide.weight)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings.

        The penalty is None for ``embeddings: false``.
        """
        embed, item, width = self.embeddings, batch["item"], self.settings.dimension
        items = embed.items(batch)
        target, user = look_up(items, item), embed.users(batch)
        penalty = (user.square().sum() + target[:, :width].square().sum()) / item.shape[0]
        profile = embed.profile(batch)
        user, target, profile = self.aligned(user, target, profile, batch)
        pieces = target.view(-1, embed.pieces, width)
        inputs = [self.numbers(batch["numbers"])]
        if self.settings.embeddings:
            inputs += [user, profile.sum(dim=1), target, self.user_to_item(user) * pieces.sum(dim=1)]
        for name, attention in self.attention.items():
            inputs.append(attention(items, item, batch[name], batch.get(f"{name}_age")))
        for name, table in self.codes.items():
            taste = look_up(table.weight, batch[name]).sum(dim=1)  # type: ignore[arg-type]
            inputs += [taste, taste * pieces.sum(dim=1)]
        for name, project in self.text_to_item.items():
            fields = torch.cat([user.unsqueeze(1), pieces[:, :1], profile], dim=1)
            text = self.text[name](self.scaling[name](batch[name]), batch[f"{name}_present"], fields)
            inputs += [text, project(text) * pieces.sum(dim=1)]
        if self.layout.row.width:
            inputs.append(embed.categories(batch))
        joined = torch.cat(inputs, dim=1)
        return self.tower(joined) + self.wide(joined), penalty if self.settings.embeddings else None

    def aligned(
        self, user: torch.Tensor, target: torch.Tensor, profile: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the embeddings that all later layers read. The base class returns them unchanged.

        Args:
            user: (B, d) user embedding.
            target: (B, pieces * d) embeddings of the item and of its categories.
            profile: (B, P, d) embeddings of the profile columns.
            batch: inputs of the network, see :class:`Network`.
        """
        return user, target, profile

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and text vectors from training rows."""
        self.numbers.fit(arrays.numbers)
        for name, scaling in self.scaling.items():
            assert isinstance(scaling, VectorScaling)
            scaling.fit(arrays.vectors[name], arrays.present[name])


class TargetAttentionRanker(Ranker):
    """Default ranker; see :class:`TargetAttentionNetwork`."""

    Settings = RankerSettings
    network_class: ClassVar[type[Network[Any]]] = TargetAttentionNetwork
    settings: RankerSettings

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[Field]:
        """Return the default fields, without the history if ``embeddings`` is false, and without the text vector if
        ``text`` is ``none``."""
        settings = self.settings
        left_out = {"history"} if not settings.embeddings else set()
        left_out |= {"vector"} if settings.text == "none" else set()
        return [field for field in default_fields(dataset, columns, settings) if field.name not in left_out]

    def check(self, layout: Layout) -> None:
        """Raise ConfigError if a text vector does not divide evenly into its chunks."""
        if self.settings.text == "select_align":
            from taiji.models.ranking.knowledge import check_chunks

            for name, width in layout.vectors.items():
                check_chunks(name, width, self.settings.chunks)

    def make_network(self) -> Network[Any]:
        """Return a new network; for ``text: select_align``, the equivalent :class:`KnowledgeNetwork`."""
        if self.settings.text != "select_align":
            return super().make_network()
        from taiji.models.ranking.knowledge import KnowledgeNetwork, KnowledgeSettings

        log.warning(
            "ranking.text: select_align is now a separate ranking model: `model: knowledge` with `kinds: {vector: %d}`.",
            self.settings.chunks,
        )
        outputs = sum(task.outputs for task in self.tasks)
        return KnowledgeNetwork(self.layout, outputs, KnowledgeSettings.of(self.settings))

    def extend(self, rows: pl.DataFrame, settings: RankerSettings, *, seed: int = 0) -> TargetAttentionRanker:
        """Return a copy of this trained ranker with KSER's alignment added. Only the alignment is trained
        (extractor-only).

        Args:
            rows: exposures with the knowledge columns. This ranker must have been trained without these columns.
            settings: :class:`taiji.models.ranking.knowledge.KnowledgeSettings`, or settings with ``text:
                select_align``, with the same layer sizes as this ranker.
            seed: random seed of the alignment's initialisation and of shuffling.

        Raises:
            ConfigError: the settings are not those of the knowledge alignment, or the ranker already has text features.
        """
        from taiji.models.ranking.knowledge import KnowledgeRanker, KnowledgeSettings

        if not (isinstance(settings, KnowledgeSettings) or settings.text == "select_align") or self.layout.vectors:
            raise ConfigError(
                "Extractor-only training cannot add knowledge to this ranker with these settings.",
                where="ranking.model",
                expected="settings of the model `knowledge`, and a base ranker trained without knowledge columns",
                found=f"{type(settings).__name__}, base vectors {dict(self.layout.vectors) or 'none'}",
            )
        made = KnowledgeRanker(settings) if isinstance(settings, KnowledgeSettings) else type(self)(settings)
        columns = [*settings.kinds, *settings.item_kinds] if isinstance(settings, KnowledgeSettings) else ["vector"]
        made.train_part(self, rows, columns, prefix="knowledge.", seed=seed)
        return made


def text_module(width: int, dimension: int, fields: int, settings: RankerSettings) -> Projection | Experts:
    """Return a new text module of the kind ``settings.text``.

    Args:
        width: width of the text vectors.
        dimension: width of a field embedding.
        fields: number of field embeddings that the gate of the experts reads.
        settings: kind and output width of the module.
    """
    if settings.text == "experts":
        return Experts(width, settings.text_width, dimension, fields)
    return Projection(width, settings.text_width)


def tower(width: int, outputs: int, settings: RankerSettings) -> nn.Module:
    """Return a new tower of the kind ``settings.tower``, from (B, width) to (B, outputs)."""
    shape = (width, outputs, settings.hidden, settings.dropout)
    return SharedBottom(*shape) if settings.tower == "shared" else MixtureOfExperts(*shape, settings.experts)
