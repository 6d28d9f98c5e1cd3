"""Decoding on a GPU with few synchronisations with the host.

A step of a model consists of hundreds of small operations, and the host needs ten times as long to launch them as the
GPU needs to read the weights. `GraphedDecoder` gives a step fixed shapes and addresses: each row attends to its whole
buffer, in which unwritten slots are masked. The step can therefore be recorded once as a CUDA graph and replayed for
every token. `run_ahead` draws tokens on the device, and the host checks only every `LOOK` steps which rows have ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

from taiji.language.prefix_decode import SharedDecoder
from taiji.nn.devices import on_device

log = logging.getLogger(__name__)
LOOK = 16
"""Number of steps between two checks by the host."""
WORTH = 8
"""Smallest number of remaining steps for which the step is recorded. A recording takes as long as about three steps."""
LEAVE = 0.5
"""Ended rows are dropped if the share of running rows is below this value. The shapes then change, so the step is
recorded again."""


class GraphedDecoder(SharedDecoder):
    """:class:`SharedDecoder` whose step has fixed shapes and, on a GPU, is recorded and replayed. Each step overwrites
    ``logits``."""

    _graph: torch.cuda.CUDAGraph | None = None
    _recordable = True

    def _group(self) -> None:
        super()._group()
        device = self._bare.device
        self._graph = None
        self._ids = torch.zeros(len(self._positions), dtype=torch.long, device=device)
        self._at = torch.full((1,), self._step, dtype=torch.long, device=device)
        self._places = torch.arange(self._max_new, device=device)

    def _forward(self, ids: torch.Tensor, step: int | torch.Tensor) -> torch.Tensor:
        self._ids.copy_(ids)
        self._at.fill_(self._step)
        if self._graph is None and self._recordable and ids.is_cuda and self._max_new - self._step >= WORTH:
            self._record()
        if self._graph is None:
            return self._body()
        self._graph.replay()
        return self._out

    def _body(self) -> torch.Tensor:
        """Run the step at position `_at` on the ids `_ids`."""
        self._unwritten = torch.zeros(self._max_new, device=self._at.device).masked_fill_(self._places > self._at, -torch.inf)  # fmt: skip
        return super()._forward(self._ids, self._at)

    def _record(self) -> None:
        """Record the step. If the model cannot be recorded, log this and continue without a recording."""
        stream, here = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(here)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(stream):
                self._body()  # initialises the libraries; the first replay writes the same values again
                graph.capture_begin()
                try:
                    self._out = self._body()
                finally:
                    graph.capture_end()
            self._graph = graph
        except RuntimeError as error:
            self._recordable = False
            reason = str(error).splitlines()[0]
            log.warning("%s cannot be recorded as a CUDA graph, so decoding is slower: %s", type(self._bare).__name__, reason)  # fmt: skip
        here.wait_stream(stream)

    def _written(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if layer not in self._tails:
            self._tails[layer] = self._empty(key), self._empty(value)
        keys, values = self._tails[layer]
        keys.index_copy_(2, self._at, key)
        values.index_copy_(2, self._at, value)
        return keys, values, self._unwritten


def run_ahead(
    decoder: SharedDecoder,
    steps: int,
    choose: Callable[[torch.Tensor, int], torch.Tensor],
    stops: Sequence[int],
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Run a decoder until each of its rows has drawn a stop id or has ``steps`` tokens.

    The host checks the tokens every `LOOK` steps. Tokens drawn after the end of a row are discarded. At the end, the
    random generator is reset to its state at the end of the last row. Tokens and random state are therefore the same as
    in a loop that checks after each step.

    Args:
        decoder: decoder that has read its prompts and has not made a step yet.
        steps: largest number of tokens per row.
        choose: function of ``(rows, step)`` that returns one token per row of ``decoder.logits``, (r,). ``rows`` (r,)
            are the indices of these rows, on the device.
        stops: ids that end a row. Such an id becomes the row's last token.
        generator: random generator that ``choose`` uses; None for the global one of the device.

    Returns:
        Token ids of each row.
    """
    device = decoder.logits.device
    total, vocabulary = decoder.logits.shape
    tokens = torch.zeros(total, steps, dtype=torch.long, device=device)
    ends = frozenset(stops)
    random = generator or _global_generator(device)
    running, rows = list(range(total)), torch.arange(total, device=device)
    written: list[list[int]] = [[] for _ in range(total)]
    done: set[int] = set()
    for at in range(0, steps, LOOK):
        states = []
        for step in range(at, min(at + LOOK, steps)):
            chosen = choose(rows, step)
            states.append(random.get_state())
            tokens[rows, step] = chosen
            if step < steps - 1:
                decoder.step(
                    chosen.clamp(max=vocabulary - 1)
                )  # an id outside the vocabulary means that the logits are NaN; the caller reports it
        last = 0
        for row, ids in zip(running, tokens[rows, at : at + LOOK].tolist()):
            if row not in done:
                end = next((place for place, token in enumerate(ids) if token in ends), None)
                length = len(ids) if end is None else end + 1
                written[row] += ids[:length]
                last = max(last, length)
                done |= set() if end is None else {row}
        going = [place for place, row in enumerate(running) if row not in done]
        if not going or at + LOOK >= steps:
            random.set_state(states[last - 1])
            break
        if len(going) < LEAVE * len(running):
            decoder.select(going)
            running, rows = [running[place] for place in going], rows[on_device(np.asarray(going), device)]
    return written


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return torch.default_generator
