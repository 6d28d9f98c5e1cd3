"""Interface of ranking networks, which map a batch of inputs to the outputs of the tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import nn

from taiji.data.field_set import Arrays, Layout
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.field_embeddings import Batch

S = TypeVar("S", bound=NeuralRankerSettings)


class Network(nn.Module, ABC, Generic[S]):
    """Base class of ranking networks.

    A network may use any of its inputs. The batch (:meth:`taiji.models.ranking.inputs.Inputs.batch`) holds:

    - ``users`` (V,) and ``user_categories`` (V, P): embedding rows of the V distinct users and of their categories;
      ``user`` (B,): indices into this list;
    - ``items`` (U, 1 + C): embedding rows of the U distinct items and of their categories, where row 0 is the padding;
      ``item`` (B,): indices into this list;
    - ``numbers`` (B, F): values of all numeric fields;
    - ``categories`` (B, K): embedding rows of the categories of context and pair fields;
    - for each sequence: ``<name>`` (R, L), indices into ``items``, and ``<name>_age`` (R, L) if ages are known; R is
      either B, or the number of requests, each with B / R candidates;
    - for each field of codes: ``<name>`` (B, M), embedding rows of the M codes of a row, 0 for a missing code;
    - for each field of vectors: ``<name>`` (B, D), and ``<name>_present`` (B,), 1 if the row has a vector, otherwise 0.

    Args:
        layout: layout of the inputs.
        outputs: number of outputs (O), see :func:`taiji.nn.losses.output_columns`.
        settings: settings of the model.
    """

    def __init__(self, layout: Layout, outputs: int, settings: S) -> None:
        super().__init__()
        self.layout, self.outputs, self.settings = layout, outputs, settings

    @abstractmethod
    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and a scalar penalty; None instead of the penalty for a model that has none.

        The penalty is added to the loss with the weight ``embedding_decay``.
        """
        return self(batch), None

    def prepare(self, arrays: Arrays) -> None:
        """Set constants from training rows, such as the scales of numbers. It is called once, before training."""
        return
