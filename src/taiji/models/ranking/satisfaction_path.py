"""EASQ (arXiv 2601.20215): a low-rank path learns from sparse survey answers; the served score is aligned with it.

The method is reconstructed from a note on the paper; ``docs/systems/easq.md`` lists our additions. With inputs x, first
layer W₀ and low-rank matrices A and B:

    h = W₀ x,   l = B A sg(x),   h_main = h + sg(l),   h_sat = sg(h) + l          (sg: no gradient)

h_main and h_sat each pass through their own experts with a ReLU router. Softplus makes the scores ŷ (served) and ŝ
(satisfaction) positive. The loss is

    L_main + λ₁ L_sat + λ₂ L_align,   L_align = −log σ(β [log ŷ⁺/ŷ⁻ − log sg(ŝ⁺)/sg(ŝ⁻)]),

where ⁺ and ⁻ mark the better and the worse row of a pair. Therefore L_main and L_align never change A, B or the
satisfaction experts, and L_sat never changes W₀ or the embeddings. With ``aligned: answers``, L_align
is the only loss on survey answers that has a gradient for W₀.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, FieldSet, Layout
from taiji.data.tasks import Task, check_tasks
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.devices import on_device
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.losses import MultitaskLoss, pairwise_loss
from taiji.nn.towers import layers

SERVED = Task(name="served", kind="pairwise")
"""Task of the served score ŷ; the log has no label column for it."""
SMALLEST = -33.0
"""Value below which log(softplus(x)) equals x to the last bit."""
Pairs = Literal["answers", "exposures"]


class SatisfactionSettings(NeuralRankerSettings):
    """Settings of EASQ. ``hidden`` is the width of the first layer, followed by the layer widths of each expert."""

    model: str = "satisfaction"
    survey: str | None = None
    """Label of kind `survey` that satisfaction is learnt from; `null` uses the only such label."""
    behaviours: dict[str, float] = Field(default_factory=dict)
    """Weights of labels by name. The served score learns to order a request's candidates by the weighted sum of these
    labels; if no weights are given, by the first label."""
    rank: PositiveInt = 4
    """Rank of the satisfaction path."""
    experts: PositiveInt = 4
    """Number of experts of the main path."""
    satisfaction_experts: PositiveInt = 2
    """Number of experts of the satisfaction path."""
    satisfaction_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight λ₁ of the satisfaction loss on pairs of survey answers."""
    alignment_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Weight λ₂ of the loss that aligns the served score with the satisfaction score."""
    sharpness: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Factor β of the log-ratios in the alignment loss."""
    aligned: Pairs = "answers"
    """Pairs of rows in the alignment loss: `answers` (a satisfied and an unsatisfied answer), or `exposures` (two
    candidates of one request, ordered by their satisfaction scores)."""
    answers: PositiveInt = 64
    """Number of rows with a survey answer that each step draws in addition to its batch, so that no step lacks
    answers."""


def log_softplus(values: torch.Tensor) -> torch.Tensor:
    """Return log(log(1 + eˣ)), finite and with a gradient for all x."""
    return torch.where(values < SMALLEST, values, functional.softplus(values.clamp_min(SMALLEST)).log())


def alignment_loss(served: torch.Tensor, satisfaction: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Return −log σ(β [log ŷ⁺/ŷ⁻ − log sg(ŝ⁺)/sg(ŝ⁻)]) of each pair, (P,).

    This is a pairwise loss on ŷ, with the log-ratio of satisfaction as its margin.

    Args:
        served: (P, 2) logits of ŷ = softplus(·), with the better row of each pair first.
        satisfaction: (P, 2) logits of ŝ = softplus(·), in the same order.
        sharpness: factor β.
    """
    ours, theirs = log_softplus(served), log_softplus(satisfaction.detach())
    return -functional.logsigmoid(sharpness * ((ours[:, 0] - ours[:, 1]) - (theirs[:, 0] - theirs[:, 1])))


def answer_pairs(answers: torch.Tensor) -> torch.Tensor:
    """Return indices (P, 2) of all pairs of rows with a satisfied and an unsatisfied answer, the satisfied one first.

    Args:
        answers: (B,) 1 for satisfied, 0 for unsatisfied, NaN for rows without an answer.
    """
    return torch.cartesian_prod(torch.nonzero(answers == 1).flatten(), torch.nonzero(answers == 0).flatten()).view(
        -1, 2
    )


def ordered_pairs(scores: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Return indices (P, 2) of all pairs of rows of the same request, the row with the higher score first.

    Args:
        scores: (B,) scores of the rows.
        group: (B,) request of each row.
    """
    above = (group.unsqueeze(1) == group.unsqueeze(0)) & (scores.unsqueeze(1) > scores.unsqueeze(0))
    return torch.nonzero(above)


class RoutedExperts(nn.Module):
    """Experts weighted by a router R(h) = ReLU(W h + b).

    The bias b is initialised to 1 / number of experts, so that at the start most rows use most experts.

    Args:
        width: width of the input.
        hidden: widths of each expert.
        outputs: number of outputs.
        dropout: dropout of each hidden layer.
        experts: number of experts.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], outputs: int, dropout: float, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(layers(width, hidden, dropout) for _ in range(experts))
        self.router = nn.Linear(width, experts)
        nn.init.constant_(self.router.bias, 1 / experts)
        self.head = nn.Linear(hidden[-1], outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, outputs) for inputs (B, width)."""
        weights = torch.relu(self.router(inputs)).unsqueeze(2)
        found = torch.stack([expert(torch.relu(inputs)) for expert in self.experts], dim=1)
        return self.head((weights * found).sum(dim=1))  # type: ignore[no-any-return]


class SatisfactionNetwork(Network[SatisfactionSettings]):
    """Network with two paths from shared inputs. Its outputs are the log's tasks, the survey and the served score."""

    def __init__(self, layout: Layout, outputs: int, settings: SatisfactionSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=True)
        width, *hidden = settings.hidden
        deeper = tuple(hidden) or (width,)
        self.first = nn.Linear(self.inputs.out_width, width)
        self.down = nn.Linear(self.inputs.out_width, settings.rank, bias=False)
        self.up = nn.Linear(settings.rank, width, bias=False)
        nn.init.zeros_(self.up.weight)
        self.main = RoutedExperts(width, deeper, outputs - 1, settings.dropout, settings.experts)
        self.satisfaction = RoutedExperts(width, deeper, 1, settings.dropout, settings.satisfaction_experts)

    def paths(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return h_main and h_sat, each (B, hidden[0]), for inputs (B, width)."""
        shared, own = self.first(flat), self.up(self.down(flat.detach()))
        return shared + own.detach(), shared.detach() + own

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        flat, _, penalty = self.inputs(batch)
        main, own = self.paths(flat)
        found, satisfaction = self.main(main), self.satisfaction(own)
        return torch.cat([found[:, :-1], satisfaction, found[:, -1:]], dim=1), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class SatisfactionLoss(MultitaskLoss):
    """Sum of the main loss, the satisfaction loss on pairs of answers, and the alignment loss.

    The main loss is the loss of the log's tasks, plus a pairwise loss of the served score.

    Args:
        tasks: tasks of the log, then the survey, then :data:`SERVED`.
        settings: weights of the losses.
    """

    def __init__(self, tasks: Sequence[Task], settings: SatisfactionSettings) -> None:
        *ordinary, survey, _ = tasks
        super().__init__(ordinary)
        self.settings, self.survey = settings, survey.name
        self.weight = settings.satisfaction_weight * survey.weight
        self.behaviours = settings.behaviours or {ordinary[0].name: 1.0}
        known = [head for task in ordinary for head in task.heads]
        if unknown := sorted(set(self.behaviours) - set(known)):
            raise ConfigError(
                "A label of ranking.behaviours is not among the tasks.",
                where="ranking.behaviours",
                expected=", ".join(known),
                found=", ".join(unknown),
            )
        self.labels = tuple(dict.fromkeys((*self.labels, *self.behaviours)))

    def main(
        self, outputs: torch.Tensor, labels: Mapping[str, torch.Tensor], group: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the main loss; for the arguments, see :class:`taiji.nn.losses.MultitaskLoss`."""
        total = super().__call__(outputs, labels, group)
        if group is None:
            return total
        value = torch.stack([weight * labels[name] for name, weight in self.behaviours.items()]).sum(dim=0)
        known = torch.isfinite(value).to(outputs.dtype)
        return total + pairwise_loss(functional.softplus(outputs[:, -1]), torch.nan_to_num(value), known, group)

    def satisfied(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean of −log σ(ŝ⁺ − ŝ⁻) over pairs of answers, times λ₁ and the survey's weight; 0 without
        pairs."""
        positive = functional.softplus(outputs[:, -2])
        pairs = positive[answer_pairs(answers)]
        losses = functional.softplus(pairs[:, 1] - pairs[:, 0])
        return self.weight * losses.sum() / max(len(losses), 1)

    def aligned(self, outputs: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """Return λ₂ times the mean alignment loss over pairs of rows (P, 2); 0 without pairs."""
        served, satisfaction = outputs[:, -1], outputs[:, -2]
        losses = alignment_loss(served[pairs], satisfaction[pairs], self.settings.sharpness)
        return self.settings.alignment_weight * losses.sum() / max(len(losses), 1)

    def taught(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the loss on answered rows: satisfaction loss and, with ``aligned: answers``, alignment loss."""
        total = self.satisfied(outputs, answers)
        return total + self.aligned(outputs, answer_pairs(answers)) if self.settings.aligned == "answers" else total

    def shown(self, outputs: torch.Tensor, group: torch.Tensor | None) -> torch.Tensor:
        """Return the alignment loss on pairs of candidates of the same request; 0 with ``aligned: answers``."""
        if self.settings.aligned == "answers" or group is None:
            return outputs.new_zeros(())
        return self.aligned(outputs, ordered_pairs(functional.softplus(outputs[:, -2].detach()), group))

    def __call__(
        self, outputs: torch.Tensor, labels: Mapping[str, torch.Tensor], group: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the total loss of rows, including the survey answers among them."""
        return (
            self.main(outputs, labels, group) + self.taught(outputs, labels[self.survey]) + self.shown(outputs, group)
        )


class SatisfactionRanker(Ranker):
    """Ranker trained on behaviour and aligned with sparse survey answers; see :class:`SatisfactionNetwork`.

    Its prediction ``served`` is the score by which candidates should be ordered.
    """

    Settings = SatisfactionSettings
    network_class = SatisfactionNetwork
    settings: SatisfactionSettings
    loss: SatisfactionLoss

    @property
    def goal(self) -> str:
        """Name of the served score."""
        return SERVED.name

    def learnt_tasks(self, dataset: Dataset) -> tuple[Task, ...]:
        """Return the tasks of the log, then the survey, then the served score.

        Raises:
            ConfigError: there is not exactly one survey, or no other label.
        """
        tasks = super().learnt_tasks(dataset)
        surveys = [task for task in tasks if task.kind == "survey" and self.settings.survey in (None, task.name)]
        ordinary = [task for task in tasks if task not in surveys]
        if len(surveys) != 1 or not ordinary:
            raise ConfigError(
                "Satisfaction needs exactly one label of kind survey and at least one other label.",
                where="ranking.survey",
                expected="one label of kind survey, and another label",
                found=", ".join(f"{task.name} ({task.kind})" for task in tasks),
                fix="declare `kind: survey` under `labels:` in the mapping, or name one of several in ranking.survey",
            )
        return check_tasks([*ordinary, *surveys, SERVED])

    def build(
        self, dataset: Dataset, fieldset: FieldSet, tasks: Sequence[Task], device: str | None = None
    ) -> SatisfactionRanker:
        """Create the network and bind it to a dataset."""
        super().build(dataset, fieldset, tasks, device)
        self.loss = SatisfactionLoss(self.tasks, self.settings)
        return self

    def step_loss(
        self, chunk: Arrays, index: NDArray[np.int64], outputs: torch.Tensor, group: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss on the rows of the batch, plus the loss on answered rows that are drawn from the chunk."""
        labels = self.step_labels(chunk, index)
        total = self.loss.main(outputs, labels, group) + self.loss.shown(outputs, group)
        answered = np.flatnonzero(np.isfinite(chunk.labels[self.loss.survey]))
        if not len(answered):
            return total
        drawn = answered[torch.randint(0, len(answered), (self.settings.answers,)).numpy()]
        answers = on_device(chunk.labels[self.loss.survey][drawn], outputs.device)
        return total + self.loss.taught(self.network(self.inputs.batch(chunk, drawn)), answers)
