"""The training loop: shuffled batches from chunks of rows, two optimisers, early stopping on later rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch

from taiji.core.progress import progress
from taiji.models.ranking.batches import Arrays
from taiji.models.ranking.ranker import Ranker
from taiji.nn.losses import multitask_loss, platt
from taiji.nn.optimisers import RowAdagrad

Chunks = Callable[[int], Iterable[Arrays]]
"""epoch -> its chunks of rows; each chunk fits in memory."""


def fit(ranker: Ranker, chunks: Chunks, rows: int, valid: Arrays | None, seed: int, *, frozen: bool = False) -> None:
    """Train in place and keep the weights of the best check.

    Args:
        ranker: to be trained; its settings hold passes, batch size, rates, patience.
        chunks: where the rows come from; rows are shuffled within a chunk.
        rows: rows a pass, for the checks and the progress display.
        valid: later rows for early stopping and calibration; None trains for all epochs.
        seed: of shuffling and dropout.
        frozen: train the text module alone (extractor-only), everything else stays as it is.
    """
    settings, model = ranker.settings, ranker.model
    optimisers = _optimisers(ranker, frozen)
    torch.manual_seed(seed)
    epochs = settings.passes(rows)
    total = rows * epochs
    check_every = max(1, total // settings.checks)
    best, best_state, worse, done, checked = np.inf, None, 0, 0, 0
    start, paused = time.perf_counter(), 0.0

    def check() -> bool:
        """Validate; True when training should stop."""
        nonlocal best, best_state, worse, paused
        before = time.perf_counter()
        loss = validation_loss(ranker, valid) if valid is not None else -float(done)
        ranker.history.append(
            {"rows": done, "loss": loss, "rows_per_second": done / max(before - start - paused, 1e-9)}
        )
        if loss < best:
            best, worse = loss, 0
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            worse += 1
        paused += time.perf_counter() - before
        return worse >= settings.patience

    with progress("Ranker", total=total) as update:
        stop = False
        for epoch in range(epochs):
            for number, chunk in enumerate(chunks(epoch)):
                order = np.random.default_rng([seed, epoch, number]).permutation(len(chunk))
                for at in range(0, len(order), settings.batch):
                    index = order[at : at + settings.batch]
                    _slow_down(optimisers, 1 - done / total)
                    _step(ranker, chunk, index, optimisers, frozen)
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
    if best_state is not None:
        model.load_state_dict(best_state)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if valid is not None:
        click, conversion = ranker.logits(valid)
        ranker.calibration = {"click": platt(click, valid.click), "conversion": platt(conversion, valid.conversion)}


def training_steps(ranker: Ranker, seed: int) -> Callable[[Arrays, np.ndarray], None]:
    """A function that trains on given rows in the order given, without checks; for timing."""
    torch.manual_seed(seed)
    optimisers = _optimisers(ranker, frozen=False)

    def steps(arrays: Arrays, index: np.ndarray) -> None:
        for at in range(0, len(index), ranker.settings.batch):
            _step(ranker, arrays, index[at : at + ranker.settings.batch], optimisers, frozen=False)

    return steps


def _optimisers(ranker: Ranker, frozen: bool) -> list[torch.optim.Optimizer]:
    settings, model = ranker.settings, ranker.model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith("text."))
    sparse: list[torch.Tensor] = [] if frozen else [model.user_embedding.weight, model.item_embedding.weight]
    dense = [p for p in model.parameters() if p.requires_grad and not any(p is s for s in sparse)]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(dense, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    ]
    return [*optimisers, RowAdagrad(sparse, lr=settings.embedding_rate)] if sparse else optimisers


def _slow_down(optimisers: list[torch.optim.Optimizer], share: float) -> None:
    """Set step sizes to a share of their settings."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group.setdefault("full", group["lr"])
            group["lr"] = group["full"] * max(share, 0.0)


def _step(
    ranker: Ranker, chunk: Arrays, index: np.ndarray, optimisers: list[torch.optim.Optimizer], frozen: bool
) -> None:
    settings, model = ranker.settings, ranker.model
    model.train(not frozen)
    if frozen and model.text is not None:
        model.text.train()
    batch = ranker.batches.batch(chunk, index)
    click, conversion, penalty = model.with_penalty(batch)
    labels = [torch.from_numpy(values[index]) for values in (chunk.click, chunk.ctcvr)]
    loss = multitask_loss(click, conversion, labels[0], labels[1], settings.conversion_weight)
    if settings.embedding_decay and settings.embeddings and not frozen:
        loss = loss + settings.embedding_decay * penalty
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def validation_loss(ranker: Ranker, valid: Arrays) -> float:
    """The training loss (without the penalty) on held-out rows."""
    click, conversion = (torch.from_numpy(values) for values in ranker.logits(valid))
    labels = [torch.from_numpy(values).double() for values in (valid.click, valid.ctcvr)]
    return float(multitask_loss(click, conversion, labels[0], labels[1], ranker.settings.conversion_weight))
