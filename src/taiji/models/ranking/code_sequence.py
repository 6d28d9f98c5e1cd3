"""QARM V2's search and attention (arXiv 2602.08559): item codes select entries of a long history, and the candidate
attends to these entries.

The general search unit selects the entries that share the most leading codes with the candidate, newest first among
ties. The exact search unit is target attention over the embeddings of these entries' item ids, categories and codes, so
an item without interactions still has the learnt embeddings of its codes.

Deviations from the paper: the paper searches by the inner product of reduced embeddings. Here, the search compares the
codes of these embeddings, which needs neither vectors nor an index at request time. The paper's mixture-of-experts head
is omitted. The paper's encoder is :mod:`taiji.language.aligned_encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from pydantic import Field as Setting
from pydantic import PositiveInt
from torch import nn

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, Layout
from taiji.data.fields import CategoryField, Field
from taiji.models.codes.item_codes import VERSION
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.code_search import attend_found, search, shared_levels
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.lookup import look_up
from taiji.nn.towers import layers


class CodeSequenceSettings(NeuralRankerSettings):
    """Settings of the ranker that searches the history by codes."""

    model: str = "code_sequence"
    history: PositiveInt = 1000
    """Number of most recent interactions of the user that are searched."""
    codes: tuple[str, ...] = Setting(default=("code_1", "code_2", "code_3"), min_length=1)
    """Columns of the item table that hold the codes, from coarse to fine; see `ItemCodes.on`."""
    found: PositiveInt = 50
    """Number of history entries that a candidate attends to."""
    least_levels: int = Setting(default=1, ge=0)
    """Smallest number of leading codes that an entry must share with the candidate. With 0, entries that share no code
    are used if fewer than `found` entries share one."""
    attended: PositiveInt = 16
    """Width to which candidates and history entries are projected for the attention."""


class ItemCodesField(CategoryField):
    """Field with the codes of the item, one category per level.

    Codes whose version differs from the learnt version are rejected.

    Args:
        columns: columns of the item table, from coarse to fine.
    """

    learnt = ("version",)

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(list(columns), "item", name="item codes")
        self.version: str | None = None
        self.options = {"columns": list(columns)}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn the codes of the items and their version.

        Raises:
            ConfigError: the items have no codes.
            InputError: the items have codes of several versions.
        """
        missing = [name for name in (*self.names, VERSION) if name not in dataset.items.columns]
        if missing:
            raise ConfigError(
                "The items have no codes.",
                where="ranking.codes, columns of the items",
                expected=", ".join((*self.names, VERSION)),
                found=f"no {', '.join(missing)}",
                fix="compute codes with a coder and add them to the dataset: ItemCodes.of(coder, vectors).on(dataset)",
            )
        self.version = _version(dataset.items)
        super().fit(dataset, rows, until)

    def values(self, dataset: Dataset, source: pl.DataFrame) -> pl.DataFrame:
        """Return the codes as strings, one column per level.

        Raises:
            InputError: the version of the codes differs from the learnt one.
        """
        found = _version(source) if VERSION in source.columns else None
        if found != self.version:
            raise InputError(
                "The version of the item codes differs from the one that the ranker learnt.",
                where=f"column {VERSION} of the items",
                expected=str(self.version),
                found=str(found),
                fix="encode the items with the coder of the learnt version, or train the ranker again",
            )
        return source.select(pl.col(name).cast(pl.String) for name in self.names)


class CodeSequenceNetwork(Network[CodeSequenceSettings]):
    """Network with one tower over all inputs and over the results of the candidate's attention to each sequence."""

    def __init__(self, layout: Layout, outputs: int, settings: CodeSequenceSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=False)
        width, attended = self.inputs.item_width, settings.attended
        names = tuple(layout.sequences)
        self.keys = nn.ModuleDict({name: nn.Linear(width, attended, bias=False) for name in names})
        self.queries = nn.ModuleDict({name: nn.Linear(width, attended, bias=False) for name in names})
        aged = [name for name, (_, has_ages) in layout.sequences.items() if has_ages]
        self.ages = nn.ModuleDict({name: nn.Linear(1, attended, bias=False) for name in aged})
        self.first_known = 1 + layout.item.hashed[-1]  # the codes come last among the item's categories
        total = self.inputs.out_width + 2 * len(names) * attended
        self.tower = layers(total, settings.hidden, settings.dropout)
        self.heads = nn.Linear(settings.hidden[-1], outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        s = self.settings
        flat, items, penalty = self.inputs(batch)
        codes = batch["items"][:, -len(s.codes) :]
        parts = [flat]
        for name, key in self.keys.items():
            sequence = batch[name]
            history = look_up(key(items), sequence)
            if name in self.ages:
                history = history + self.ages[name](batch[f"{name}_age"].unsqueeze(2))
            query = look_up(self.queries[name](items), batch["item"])
            grouped = query.view(sequence.shape[0], -1, s.attended)
            mine = look_up(codes, batch["item"]).view(sequence.shape[0], -1, len(s.codes))
            shared = shared_levels(mine, look_up(codes, sequence), self.first_known)
            found_at_most = min(s.found, self.layout.sequences[name][0])
            positions, there = search(shared, sequence != 0, found_at_most, s.least_levels)
            found = attend_found(grouped, history, positions, there).view(-1, s.attended)
            parts += [found, found * query]
        return self.heads(self.tower(torch.cat(parts, dim=1))), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class CodeSequenceRanker(Ranker):
    """Ranker that searches the history by codes; see :class:`CodeSequenceNetwork`."""

    Settings = CodeSequenceSettings
    settings: CodeSequenceSettings
    network_class = CodeSequenceNetwork

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[Field]:
        """Return the default fields, followed by the field of codes."""
        return [*default_fields(dataset, columns, self.settings), ItemCodesField(self.settings.codes)]


def _version(items: pl.DataFrame) -> str | None:
    found = items[VERSION].unique().to_list()
    if len(found) > 1:
        raise InputError(
            "The items have codes of several versions.",
            where=f"column {VERSION} of the items",
            expected="one version",
            found=", ".join(map(str, found)),
            fix="encode all items with one coder",
        )
    return str(found[0]) if found else None
