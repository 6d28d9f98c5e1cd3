"""Multi-task rankers with any number of tasks: MMoE (Ma et al. 2018b), PLE (Tang et al. 2020) and ESMM (Ma et al.
2018a)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from pydantic import PositiveInt
from torch import nn

from taiji.data.field_set import Arrays, Layout
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.towers import layers


class MultitaskSettings(NeuralRankerSettings):
    """Settings of a multi-task ranker. ``hidden`` has the layer widths of an expert or, for ESMM, of a task's tower."""

    task_hidden: tuple[PositiveInt, ...] = (32,)
    """Widths of the hidden layers of each task that follow the layers in `hidden`."""


class MMoESettings(MultitaskSettings):
    """Settings of the model MMoE."""

    model: str = "mmoe"
    experts: PositiveInt = 4
    """Number of experts; all tasks share them."""


class PLESettings(MultitaskSettings):
    """Settings of the model PLE."""

    model: str = "ple"
    own_experts: PositiveInt = 2
    """Number of experts per task."""
    shared_experts: PositiveInt = 2
    """Number of experts that all tasks share."""
    levels: PositiveInt = 2
    """Number of successive extraction layers. A single layer gives CGC (customised gate control)."""


class ESMMSettings(MultitaskSettings):
    """Settings of the model ESMM."""

    model: str = "esmm"


S = TypeVar("S", bound=MultitaskSettings)


class MultitaskNetwork(Network[S]):
    """Network that computes one representation per task from all inputs, followed by one tower and head per task.

    Args:
        layout: layout of the inputs.
        outputs: number of outputs per task, in the order of the tasks.
        settings: settings of the model.
    """

    def __init__(self, layout: Layout, outputs: Sequence[int], settings: S) -> None:
        super().__init__(layout, sum(outputs), settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=True)
        width = self.grow(self.inputs.out_width, len(outputs))
        last = settings.task_hidden[-1] if settings.task_hidden else width
        self.towers = nn.ModuleList(layers(width, settings.task_hidden, settings.dropout) for _ in outputs)
        self.heads = nn.ModuleList(nn.Linear(last, size) for size in outputs)

    @abstractmethod
    def grow(self, width: int, tasks: int) -> int:
        """Create the layers between the inputs and the tasks' own layers. Return the width that each task receives."""

    @abstractmethod
    def taken(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Return one representation (B, w) per task, from the inputs (B, width)."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        flat, _, penalty = self.inputs(batch)
        taken = zip(self.towers, self.heads, self.taken(flat))
        return torch.cat([head(tower(values)) for tower, head, values in taken], dim=1), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class GatedMixture(nn.Module):
    """Softmax gate over several experts (Ma et al. 2018b, eq. 5–7).

    Args:
        width: width of the gate's input.
        experts: number of experts.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)

    def weights(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the weights of the experts, (B, E), which sum to 1 per row."""
        return torch.softmax(self.gate(inputs), dim=1)

    def forward(self, inputs: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mixture (B, w) of the experts' outputs, each (B, w)."""
        return (self.weights(inputs).unsqueeze(2) * torch.stack(list(experts), dim=1)).sum(dim=1)


class MMoENetwork(MultitaskNetwork[MMoESettings]):
    """Network of experts that all tasks share, mixed by one gate per task."""

    def grow(self, width: int, tasks: int) -> int:
        """Create the experts, and one gate per task. Return the width of an expert's output."""
        s = self.settings
        self.experts = nn.ModuleList(layers(width, s.hidden, s.dropout) for _ in range(s.experts))
        self.gates = nn.ModuleList(GatedMixture(width, s.experts) for _ in range(tasks))
        return s.hidden[-1]

    def taken(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Return the mixture of the experts' outputs for each task, (B, w) each, from the inputs (B, width)."""
        outputs = [expert(flat) for expert in self.experts]
        return [gate(flat, outputs) for gate in self.gates]


class Extraction(nn.Module):
    """Layer of progressive extraction: experts and a gate per task, and shared experts with a shared gate.

    The gate of a task mixes the task's own experts and the shared experts; the shared gate mixes all experts. The last
    layer has no shared gate.

    Args:
        width: width of the inputs.
        tasks: number of tasks.
        settings: widths and numbers of the experts.
        last: True for the last layer.
    """

    def __init__(self, width: int, tasks: int, settings: PLESettings, *, last: bool) -> None:
        super().__init__()
        own, shared = settings.own_experts, settings.shared_experts

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(layers(width, settings.hidden, settings.dropout) for _ in range(count))

        self.own = nn.ModuleList(experts(own) for _ in range(tasks))
        self.shared = experts(shared)
        self.gates = nn.ModuleList(GatedMixture(width, own + shared) for _ in range(tasks))
        self.shared_gate = None if last else GatedMixture(width, tasks * own + shared)

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return one output (B, w) per task, followed by the output of the shared gate except in the last layer.

        Args:
            inputs: one input (B, width) per task, followed by the input of the shared experts.
        """
        shared = [expert(inputs[-1]) for expert in self.shared]
        own = [[expert(values) for expert in experts] for experts, values in zip(self.own, inputs)]  # type: ignore[attr-defined]
        found = [gate(values, [*mine, *shared]) for gate, values, mine in zip(self.gates, inputs, own)]
        if self.shared_gate is not None:
            found.append(self.shared_gate(inputs[-1], [*(output for mine in own for output in mine), *shared]))
        return found


class PLENetwork(MultitaskNetwork[PLESettings]):
    """Network with extraction layers between inputs and tasks (Tang et al. 2020, fig. 5)."""

    def grow(self, width: int, tasks: int) -> int:
        """Create the extraction layers. Return the width of the last layer's outputs."""
        widths = [width, *[self.settings.hidden[-1]] * (self.settings.levels - 1)]
        self.tasks = tasks
        self.extractions = nn.ModuleList(
            Extraction(size, tasks, self.settings, last=level == len(widths) - 1) for level, size in enumerate(widths)
        )
        return self.settings.hidden[-1]

    def taken(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Return the last extraction layer's output for each task, (B, w) each, from the inputs (B, width)."""
        values = [flat] * (self.tasks + 1)
        for extraction in self.extractions:
            values = extraction(values)
        return values


class ESMMNetwork(MultitaskNetwork[ESMMSettings]):
    """Network with one tower per task over shared embeddings.

    The loss (:class:`taiji.nn.losses.MultitaskLoss`) makes the model ESMM: a conditional task, such as conversion given
    click, is trained on its joint label on all exposures. The joint prediction is the product of the task's probability
    and the probabilities of its conditions.
    """

    def grow(self, width: int, tasks: int) -> int:
        """Create one tower per task. Return the width of a tower's output."""
        self.bodies = nn.ModuleList(layers(width, self.settings.hidden, self.settings.dropout) for _ in range(tasks))
        return self.settings.hidden[-1]

    def taken(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each task's tower, (B, w) each, from the inputs (B, width)."""
        return [body(flat) for body in self.bodies]


class MultitaskRanker(Ranker):
    """Base class of multi-task rankers. Their networks are constructed with the number of outputs of each task."""

    multitask_class: ClassVar[type[MMoENetwork | PLENetwork | ESMMNetwork]]

    def make_network(self) -> Network[MMoESettings] | Network[PLESettings] | Network[ESMMSettings]:
        """Return a new network for the tasks."""
        return self.multitask_class(self.layout, [task.outputs for task in self.tasks], self.settings)  # type: ignore[arg-type]


class MMoERanker(MultitaskRanker):
    """Ranker with an :class:`MMoENetwork`."""

    Settings = MMoESettings
    multitask_class = MMoENetwork


class PLERanker(MultitaskRanker):
    """Ranker with a :class:`PLENetwork`."""

    Settings = PLESettings
    multitask_class = PLENetwork


class ESMMRanker(MultitaskRanker):
    """Ranker with an :class:`ESMMNetwork`."""

    Settings = ESMMSettings
    multitask_class = ESMMNetwork
