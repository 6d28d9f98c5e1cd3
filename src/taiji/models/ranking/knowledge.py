"""KSER (arXiv 2508.07223): chunks of a language model's knowledge are weighted and aligned with the ranker's fields.

The method is reconstructed from the abstract; see ``docs/systems/kser.md``. Chunks e of several kinds (rationale,
answer, item knowledge) are projected by one matrix P per kind. The weight s of a chunk is computed from MLP[P e; user;
item]. With a null chunk, which stands for "no knowledge", s is a softmax over the chunks and the null chunk, so the
weights of all chunks can go to 0. Without a null chunk, s is a sigmoid per chunk. The field embeddings X of the ranker
are queries, and the weighted chunks are keys and values:

    Z = softmax(X W_Q (W_K s P e)ᵀ / √d) (W_V s P e),      X ← X + W_o Z.

W_o is initialised to zero, so an untrained alignment does not change the predictions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, Layout
from taiji.data.fields import Field as InputField
from taiji.data.fields import NumbersField, Rows
from taiji.data.list_fields import VectorField
from taiji.models.ranking.settings import RankerSettings, TextUse
from taiji.models.ranking.target_attention import TargetAttentionNetwork, TargetAttentionRanker
from taiji.nn.field_embeddings import Batch, VectorScaling
from taiji.nn.lookup import look_up

Array = NDArray[Any]
ALL_NUMBERS = "numbers with knowledge"
NO_CHUNK = -1e9
"""Logit of a chunk that a row does not have."""


class KnowledgeSettings(RankerSettings):
    """Settings of KSER, in addition to all settings of the default ranking model.

    ``text`` sets how the column ``vector`` is read; use it only if ``vector`` is not listed in ``kinds``.
    """

    model: str = "knowledge"
    text: TextUse = "none"
    kinds: dict[str, PositiveInt] = Field(default_factory=lambda: {"vector": 1})
    """Kinds of knowledge about the user: names of feature columns with vectors, mapped to the number of chunks in each
    vector. The length of a vector is the number of chunks times the embedder's width."""
    item_kinds: dict[str, PositiveInt] = Field(default_factory=dict)
    """Kinds of knowledge about the item: names of columns of the item table with lists of numbers, mapped to the number
    of chunks in each list."""
    null_chunk: bool = True
    """True to weight the chunks against each other and a null chunk; False to weight each chunk on its own."""

    @model_validator(mode="after")
    def _knowledge_has_fields(self) -> KnowledgeSettings:
        if not self.embeddings:
            raise ValueError("knowledge is aligned with embeddings, so embeddings must be true")
        if self.text == "select_align" or (self.text != "none" and "vector" in self.kinds):
            raise ValueError(
                f"text must not be {self.text}: it must be none if kinds contains vector, because the alignment reads "
                "the vector, and it must never be select_align"
            )
        return self

    @classmethod
    def of(cls, settings: RankerSettings) -> KnowledgeSettings:
        """Return the KSER settings that are equivalent to the default model's settings with ``text: select_align``."""
        old = {**settings.model_dump(), "model": "knowledge", "text": "none"}
        return cls.model_validate({**old, "kinds": {"vector": settings.chunks}, "null_chunk": False})


class ItemKnowledge(NumbersField):
    """Field with a vector per item, from a column of the item table with lists of numbers; 0 for missing values.

    Args:
        column: column of the item table.
    """

    learnt = ("width",)

    def __init__(self, column: str) -> None:
        super().__init__(column, "item")
        self.width = 0
        self.options = {"column": column}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values: ``<column>[0]`` and so on."""
        return tuple(f"{self.name}[{place}]" for place in range(self.width))

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Read the length of the vectors from the item table.

        Raises:
            ConfigError: there are no vectors, or their lengths differ.
        """
        kind = dataset.items.schema.get(self.name)
        lengths: list[int] = []
        if isinstance(kind, pl.List):
            lengths = sorted(dataset.items[self.name].list.len().drop_nulls().unique().to_list())
        if len(lengths) != 1:
            raise ConfigError(
                "The items have no knowledge vectors, or vectors of different lengths.",
                where=f"ranking.item_kinds, column {self.name} of the items",
                expected="lists of numbers, all of the same length",
                found=str(kind or "no such column") + (f", lengths {lengths[:5]}" if lengths else ""),
            )
        self.width = lengths[0]

    def matrix(self, rows: Rows) -> Array:
        """Return the vector of each row's item, (N, width) float32."""
        items = rows.dataset.items
        out = np.zeros((len(items), self.width), dtype=np.float32)
        if self.name in items.columns:
            mask = (items[self.name].list.len() == self.width).fill_null(False).to_numpy()
            if mask.any():
                out[mask] = items[self.name].filter(pl.Series(mask)).explode().to_numpy().reshape(-1, self.width)
        return np.nan_to_num(out)[rows.item]


class SelectAlign(nn.Module):
    """Weighting of the chunks of all kinds, followed by their alignment with the ranker's fields; see the module
    docstring.

    Args:
        kinds: (width of the vector, number of chunks) by name.
        dimension: width of a field.
        null_chunk: add a null chunk to the softmax; otherwise each chunk has a sigmoid weight.
    """

    def __init__(self, kinds: Mapping[str, tuple[int, int]], dimension: int, *, null_chunk: bool) -> None:
        super().__init__()
        self.kinds, self.dimension = dict(kinds), dimension
        self.count = sum(chunks for _, chunks in kinds.values())
        self.project = nn.ModuleDict(
            {name: nn.Linear(width // chunks, dimension) for name, (width, chunks) in kinds.items()}
        )
        self.select = nn.Sequential(nn.Linear(3 * dimension, dimension), nn.ReLU(), nn.Linear(dimension, 1))
        self.query, self.key, self.value = (nn.Linear(dimension, dimension, bias=False) for _ in range(3))
        self.output = nn.Linear(dimension, dimension, bias=False)
        nn.init.zeros_(self.output.weight)
        self.null = nn.Parameter(torch.zeros(())) if null_chunk else None

    def projected(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the projected chunks (B, C, d) of all kinds, from one vector (B, width) per kind."""
        parts = []
        for name, (width, chunks) in self.kinds.items():
            parts.append(self.project[name](vectors[name].view(-1, chunks, width // chunks)))
        return torch.cat(parts, dim=1)

    def present(self, mask: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a mask of the chunks that each row has, (B, C), from one mask (B,) per kind."""
        return torch.cat([mask[name].unsqueeze(1).expand(-1, n) for name, (_, n) in self.kinds.items()], dim=1)

    def chunk_weights(self, projected: torch.Tensor, mask: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """Return the weight of each chunk, (B, C). With a null chunk, the weights sum to less than 1, and a missing
        chunk has weight 0.

        Args:
            projected: (B, C, d) projected chunks.
            mask: (B, C) 1 for a chunk that the row has.
            fields: (B, n, d) embeddings of the fields, user and item first.
        """
        around = fields[:, :2].flatten(1).unsqueeze(1).expand(-1, self.count, -1)
        logits = self.select(torch.cat([projected, around], dim=2)).squeeze(2)
        if self.null is None:
            return torch.sigmoid(logits)
        nothing = torch.zeros_like(logits[:, :1]) + self.null
        return torch.softmax(torch.cat([logits.masked_fill(mask == 0, NO_CHUNK), nothing], dim=1), dim=1)[:, :-1]

    def found(self, chosen: torch.Tensor, mask: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """Return Z, the attention of each field over the weighted chunks, (B, n, d); 0 for a row without chunks.

        Args:
            chosen: (B, C, d) weighted chunks.
            mask: (B, C) 1 for a chunk that the row has.
            fields: (B, n, d) embeddings of the fields.
        """
        logits = torch.bmm(self.query(fields), self.key(chosen).transpose(1, 2)) / math.sqrt(self.dimension)
        weights = torch.softmax(logits.masked_fill(mask.unsqueeze(1) == 0, NO_CHUNK), dim=2)
        return torch.bmm(weights * mask.unsqueeze(1), self.value(chosen))

    def forward(
        self, vectors: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor], fields: torch.Tensor
    ) -> torch.Tensor:
        """Return the term (B, n, d) to add to the fields; 0 for rows without knowledge.

        Args:
            vectors: one vector (B, width) per kind.
            mask: one mask (B,) per kind, 1 if the row has a vector.
            fields: (B, n, d) embeddings of the fields: user, item, ….
        """
        projected, known = self.projected(vectors), self.present(mask)
        chosen = self.chunk_weights(projected, known, fields).unsqueeze(2) * projected
        return self.output(self.found(chosen, known, fields))  # type: ignore[no-any-return]


class KnowledgeNetwork(TargetAttentionNetwork):
    """Network of the default model that first aligns the embeddings of user, item and profile with knowledge.

    Args:
        layout: layout of the inputs; the last numbers are the items' knowledge.
        outputs: number of outputs.
        settings: settings of the model.
    """

    def __init__(self, layout: Layout, outputs: int, settings: KnowledgeSettings) -> None:
        own = {name: width for name, width in layout.vectors.items() if name in settings.kinds}
        items = {name: sum(n.startswith(f"{name}[") for n in layout.numbers) for name in settings.item_kinds}
        others = len(layout.numbers) - sum(items.values())
        rest = {name: width for name, width in layout.vectors.items() if name not in own}
        super().__init__(replace(layout, vectors=rest, numbers=layout.numbers[:others]), outputs, settings)
        self.layout, self.item_widths, self.others = layout, items, others
        for name, width in own.items():
            self.scaling[name] = VectorScaling(width)
        self.item_scaling = nn.ModuleDict({name: VectorScaling(width) for name, width in items.items()})
        kinds = {name: (width, settings.kinds[name]) for name, width in own.items()}
        kinds |= {name: (width, settings.item_kinds[name]) for name, width in items.items()}
        self.own = tuple(own)
        self.knowledge = SelectAlign(kinds, settings.dimension, null_chunk=settings.null_chunk) if kinds else None
        self.register_load_state_dict_pre_hook(_renamed)

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O) and the penalty, see :class:`TargetAttentionNetwork`."""
        if self.item_widths:
            numbers = batch["numbers"]
            batch = batch | {"numbers": numbers[:, : self.others], ALL_NUMBERS: numbers}
        return super().penalised(batch)

    def kinds_of(self, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return, per kind, the scaled vectors (B, width), and a mask (B,) with 1 for rows that have a vector."""
        vectors = {name: self.scaling[name](batch[name]) for name in self.own}
        mask = {name: batch[f"{name}_present"] for name in self.own}
        start = self.others
        for name, width in self.item_widths.items():
            found = batch[ALL_NUMBERS][:, start : start + width]
            vectors[name], mask[name] = self.item_scaling[name](found), (found != 0).any(dim=1).to(found.dtype)
            start += width
        return vectors, mask

    def aligned(
        self, user: torch.Tensor, target: torch.Tensor, profile: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the embeddings of user, item and profile, aligned with the knowledge.

        The categories of the item, which follow it in ``target``, are returned unchanged.
        """
        if self.knowledge is None:
            return user, target, profile
        width = self.settings.dimension
        fields = torch.cat([user.unsqueeze(1), target[:, :width].unsqueeze(1), profile], dim=1)
        fields = fields + self.knowledge(*self.kinds_of(batch), fields)
        return fields[:, 0], torch.cat([fields[:, 1], target[:, width:]], dim=1), fields[:, 2:]

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers, text vectors and knowledge from training rows."""
        start = self.others
        for name, width in self.item_widths.items():
            found = arrays.numbers[:, start : start + width]
            self.item_scaling[name].fit(found, (found != 0).any(axis=1))  # type: ignore[operator]
            start += width
        super().prepare(replace(arrays, numbers=arrays.numbers[:, : self.others]))


def _renamed(module: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Rename weights when loading a ranker that was saved before several kinds of knowledge were supported."""
    for name in [name for name in state if name.startswith("text.vector.") and "vector" not in module.text]:  # type: ignore[operator]
        rest = name.removeprefix("text.vector.")
        rest = rest.replace("project.", "project.vector.", 1) if rest.startswith("project.") else rest
        state[f"knowledge.{rest}"] = state.pop(name)


class KnowledgeRanker(TargetAttentionRanker):
    """Default ranker with several kinds of knowledge; see :class:`KnowledgeNetwork`."""

    Settings = KnowledgeSettings
    network_class = KnowledgeNetwork
    settings: KnowledgeSettings

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[InputField]:
        """Return the fields of the default model, and one field per kind of knowledge."""
        s = self.settings
        own = [VectorField(name) for name in s.kinds if name in columns]
        usual = [field for field in super().fields(dataset, columns) if field.name not in s.kinds]
        return [*usual, *own, *(ItemKnowledge(name) for name in s.item_kinds)]

    def check(self, layout: Layout) -> None:
        """Raise ConfigError if a vector does not divide evenly into its chunks."""
        items = {name: sum(n.startswith(f"{name}[") for n in layout.numbers) for name in self.settings.item_kinds}
        for name, chunks in {**self.settings.kinds, **self.settings.item_kinds}.items():
            check_chunks(name, layout.vectors.get(name, items.get(name, 0)), chunks)

    def chunk_weights(self, exposures: pl.DataFrame) -> NDArray[np.float64]:
        """Return the weight of each chunk in each row, (N, C), with kinds in the order of the settings.

        If all weights are equal, the model has not learnt to select chunks.
        """
        network = self.network
        assert isinstance(network, KnowledgeNetwork)
        if network.knowledge is None:
            return np.zeros((len(exposures), 0))
        network.eval()
        batch = self.inputs.batch(self.inputs.arrays(exposures), slice(None))
        with torch.inference_mode():
            embed = network.embeddings
            item = look_up(embed.items(batch), batch["item"])[:, : self.settings.dimension]
            fields = torch.stack([embed.users(batch), item], dim=1)
            vectors, mask = network.kinds_of(batch | {ALL_NUMBERS: batch["numbers"]})
            knowledge = network.knowledge
            found = knowledge.chunk_weights(knowledge.projected(vectors), knowledge.present(mask), fields)
        return found.double().cpu().numpy()  # type: ignore[no-any-return]


def check_chunks(column: str, width: int, chunks: int) -> None:
    """Raise ConfigError if the width of a vector is not a multiple of its number of chunks."""
    if width % chunks:
        raise ConfigError(
            "The vector does not divide evenly into chunks.",
            where=f"ranking, column {column}",
            expected=f"a divisor of {width}",
            found=f"{chunks} chunks",
        )
