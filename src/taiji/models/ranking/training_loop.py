"""Training loop: shuffled batches from chunks of rows, two optimisers, and early stopping on later rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taiji.core.progress import progress
from taiji.data.field_set import Arrays
from taiji.nn.devices import on_device
from taiji.nn.early_stopping import BestWeights
from taiji.nn.field_embeddings import Batch
from taiji.nn.optimisers import RowAdagrad
from taiji.nn.predictions import calibrate

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker

log = logging.getLogger(__name__)
Chunks = Callable[[int], Iterable[Arrays]]
"""Function from the number of an epoch to its chunks of rows, each of which fits in memory."""
Index = NDArray[np.int64]


def train(ranker: Ranker, chunks: Chunks, rows: int, valid: Arrays | None, seed: int, *, part: str = "") -> None:
    """Train a ranker in place, and keep the weights of the best validation check.

    Args:
        ranker: ranker to train; its settings determine the number of epochs, batch size, learning rates and patience.
        chunks: source of the rows, which are shuffled within each chunk.
        rows: number of rows per epoch. It determines the number of epochs, the decay of the learning rates, the
            intervals between checks and the progress display.
        valid: later rows for early stopping and calibration. With None, all epochs are run and nothing is calibrated.
        seed: random seed of shuffling and dropout.
        part: train only weights whose names begin with this prefix; empty for all.
    """
    settings, network = ranker.settings, ranker.network
    if valid is not None and not any(np.isfinite(valid.labels[name]).any() for name in ranker.loss.labels):
        log.warning(
            "The validation rows have no known label of any task, so all epochs are run and nothing is calibrated."
        )
        valid = None
    step = Step(ranker, part)
    torch.manual_seed(seed)
    epochs = settings.passes(rows)
    total = rows * epochs
    check_every = max(1, total // settings.checks)
    best, done, checked = BestWeights(network, settings.patience), 0, 0
    start, paused = time.perf_counter(), 0.0

    def check() -> bool:
        """Compute the validation loss, add an entry to the history, and return True if training should stop."""
        nonlocal paused
        before = time.perf_counter()
        loss = validation_loss(ranker, valid) if valid is not None else -float(done)
        ranker.history.append(
            {"rows": done, "loss": loss, "rows_per_second": done / max(before - start - paused, 1e-9)}
        )
        stop = best.stop(-loss)
        paused += time.perf_counter() - before
        return stop

    with progress("Ranker", total=total, early=valid is not None) as update:
        stop = False
        for epoch in range(epochs):
            for number, chunk in enumerate(chunks(epoch)):
                order = _order(chunk, np.random.default_rng([seed, epoch, number]))
                for at in range(0, len(order), settings.batch):
                    index = order[at : at + settings.batch]
                    step.slow_down(1 - done / total)
                    step(chunk, index)
                    done += len(index)
                    update(done)
                    if done - checked >= check_every:
                        checked = done
                        stop = check()
                        if stop:
                            break
                if stop:
                    break
            if stop:
                break
        if not stop and done > checked:
            check()
    best.restore()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if valid is not None:
        ranker.calibration = calibrate(ranker.logits(valid), valid.labels, ranker.tasks)


class _Reading(dict[str, torch.Tensor]):
    """Batch that records which of its inputs are read."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.unread = {name: None for name in batch if not name.endswith(("_age", "_present"))}

    def __getitem__(self, name: str) -> torch.Tensor:
        self.unread.pop(name, None)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an input, or the default, and record that it was read."""
        self.unread.pop(name, None)
        return super().get(name, default)

    def __or__(self, other: Batch) -> _Reading:  # type: ignore[override]
        """Return a copy with some inputs replaced. Reads of the copy are also recorded in this batch."""
        made = _Reading(super().__or__(other))
        made.unread = self.unread
        return made


class Step:
    """Training step: forward pass, loss, backward pass and update of the weights.

    Args:
        ranker: ranker to train.
        part: prefix of the names of the weights to train; all other weights are frozen.
    """

    def __init__(self, ranker: Ranker, part: str = "") -> None:
        self.ranker, self.part, self.started = ranker, part, False
        settings, network = ranker.settings, ranker.network
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(part))
        sparse = [m.weight for m in network.modules() if isinstance(m, nn.Embedding) and m.sparse]
        sparse = [weight for weight in sparse if weight.requires_grad]
        dense = [p for p in network.parameters() if p.requires_grad and not any(p is s for s in sparse)]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        ]
        if sparse:
            self.optimisers.append(RowAdagrad(sparse, lr=settings.embedding_rate))

    def slow_down(self, share: float) -> None:
        """Set the learning rates to ``share`` times their initial values."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group.setdefault("full", group["lr"])
                group["lr"] = group["full"] * max(share, 0.0)

    def __call__(self, chunk: Arrays, index: Index) -> None:
        """Do one step on the rows ``index`` of a chunk."""
        ranker, network = self.ranker, self.ranker.network
        network.train(not self.part)
        if self.part:
            for name, module in network.named_modules():
                if f"{name}.".startswith(self.part):
                    module.train()
        batch = ranker.inputs.batch(chunk, index)
        if not self.started:
            self.started, batch = True, _Reading(batch)
        outputs, penalty = network.penalised(batch)
        if isinstance(batch, _Reading) and batch.unread:
            log.warning(
                "The network of %s never reads: %s. Rows that differ only in these inputs get the same predictions.",
                type(ranker).__qualname__,
                ", ".join(batch.unread),
            )
        group = None if chunk.group is None else on_device(chunk.group[index], outputs.device)
        loss = ranker.step_loss(chunk, index, outputs, group)
        if ranker.settings.embedding_decay and penalty is not None and not self.part:
            loss = loss + ranker.settings.embedding_decay * penalty
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()


def training_steps(ranker: Ranker, seed: int) -> Callable[[Arrays, Index], None]:
    """Return a function that trains on the rows ``index`` in the given order, without validation checks, for timing."""
    torch.manual_seed(seed)
    step = Step(ranker)

    def steps(arrays: Arrays, index: Index) -> None:
        for at in range(0, len(index), ranker.settings.batch):
            step(arrays, index[at : at + ranker.settings.batch])

    return steps


def validation_loss(ranker: Ranker, valid: Arrays) -> float:
    """Return the loss on held-out rows, without the penalty on embeddings."""
    outputs = torch.from_numpy(ranker.logits(valid))
    labels = {name: torch.from_numpy(values).double() for name, values in valid.labels.items()}
    if valid.group is None:
        return float(ranker.loss(outputs, labels))
    group = torch.from_numpy(valid.group)
    order = np.argsort(valid.group, kind="stable")
    losses, sizes = [], []
    for at in range(
        0, len(order), ranker.settings.batch
    ):  # rows are sorted by request and read in batches, because a matrix of all pairs of rows would be too large
        index = torch.from_numpy(order[at : at + ranker.settings.batch])
        part = {name: values[index] for name, values in labels.items()}
        losses.append(float(ranker.loss(outputs[index], part, group[index])))
        sizes.append(len(index))
    return float(np.average(losses, weights=sizes)) if losses else float("nan")


def _order(chunk: Arrays, random: np.random.Generator) -> Index:
    """Return a random order of the rows. For pairwise losses, the rows of a request stay together."""
    if chunk.group is None:
        return random.permutation(len(chunk))
    place = random.permutation(int(chunk.group.max(initial=-1)) + 1)
    return np.argsort(place[chunk.group], kind="stable")
