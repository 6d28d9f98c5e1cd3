"""Decoding of many continuations per prompt with one copy of the prompt's keys and values.

A row is one continuation. The prompts are read in one packed pass (without padding). Then each step runs one token per
row through the model. The attention merges two pieces: all rows of a prompt attend to the keys of that prompt in one
matrix product, and each row attends to its own continuation in a buffer of fixed size. The prompt is not copied per
row, and ended rows can be dropped.

For models that do not support this, `open_decoder` returns another decoder with the same interface.

In shapes, R is the number of running rows, Hq and Hk are the numbers of query heads and of key heads, and d is the size
of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from taiji.core.errors import InputError
from taiji.data.history import rows_and_places
from taiji.language.lean_decode import LeanDecoder, row_counts
from taiji.language.prefix_attention import PACKED_MASK, check_seen
from taiji.language.prefix_forward import bare_model, packed_hidden
from taiji.language.prefix_head import head_of
from taiji.language.prefix_tree import PackedTree
from taiji.nn.devices import on_device


class _Prompts:
    """Keys and values of the prompts by layer, each (prompts, Hk, longest, d), stored by the layers with `keep`."""

    def __init__(self, paths: Sequence[np.ndarray], device: torch.device) -> None:
        longest = max(map(len, paths))
        self._rows = on_device(np.stack([np.pad(path, (0, longest - len(path))) for path in paths]), device)
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        ends = on_device(np.asarray([len(path) for path in paths]), device)
        beyond = torch.arange(longest, device=device)[None, :] >= ends[:, None]
        self.bias = torch.zeros(beyond.shape, device=device).masked_fill_(beyond, -torch.inf)[:, None, None, :]

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store the packed keys and values (1, Hk, T, d) of a layer."""
        self.keys[layer] = key[0][:, self._rows].transpose(0, 1).contiguous()
        self.values[layer] = value[0][:, self._rows].transpose(0, 1).contiguous()

    def select(self, kept: torch.Tensor) -> None:
        """Keep only the given prompts."""
        self.bias = self.bias[kept]
        for held in (self.keys, self.values):
            for layer, tensor in held.items():
                held[layer] = tensor[kept]


class SharedDecoder:
    """State of running rows that continue prompts.

    Attributes:
        logits: (R, V) float32 logits of the next token of each running row.
        prompt_of: index of the prompt of each running row.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int) -> None:
        """Read the prompts.

        Args:
            model: causal LM for which :func:`supports_sharing` is true, in evaluation mode.
            prompts: token ids; equal prompts are computed once.
            copies: number of rows per prompt, either one number for all prompts or one for each.
            max_new: longest continuation, in tokens.
        """
        counts = row_counts(prompts, copies, max_new)
        self._bare = bare_model(model)
        self._head = head_of(self._bare)
        unique: dict[tuple[int, ...], int] = {}
        numbers = [unique.setdefault(tuple(p), len(unique)) for p in prompts]
        tree = PackedTree(list(unique))
        self._prompts = _Prompts(tree.paths, self._bare.device)
        with torch.no_grad():
            states = packed_hidden(model, tree, self._prompts)
            last = self._head.logits(states[[int(path[-1]) for path in tree.paths]])
        self.prompt_of = np.repeat(np.arange(len(prompts)), counts)
        self._source = np.repeat(np.asarray(numbers), counts)
        self.logits = last[on_device(self._source, last.device)]
        self._lengths = np.asarray([len(p) for p in unique])
        self._max_new, self._step = max_new, 0
        self._tails: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._group()

    def _group(self) -> None:
        """Arrange the rows as a grid (prompts, largest number of rows per prompt).

        `_slots` and `_flat` are the indices that convert from the flat arrangement to the grid and back. They are None
        if the two arrangements are the same.
        """
        kept, groups, counts = np.unique(self._source, return_inverse=True, return_counts=True)
        if len(kept) < len(self._lengths):  # a prompt without rows is dropped
            self._prompts.select(on_device(kept, self._bare.device))
            self._lengths, self._source = self._lengths[kept], groups
        width = int(counts.max())
        order = np.argsort(groups, kind="stable")
        _, within = rows_and_places(counts)
        slots = np.zeros(len(counts) * width, np.int64)
        flat = np.empty(len(order), np.int64)
        flat[order] = groups[order] * width + within
        slots[flat] = np.arange(len(order))
        trivial = len(slots) == len(flat) and bool((flat == np.arange(len(flat))).all())
        device = self._bare.device
        self._slots: torch.Tensor | None = None if trivial else on_device(slots, device)
        self._flat: torch.Tensor | None = None if trivial else on_device(flat, device)
        self._positions = on_device(self._lengths[self._source], device)
        self._even = bool((self._lengths == self._lengths.max()).all()) and self._prompts.bias.shape[-1] == int(
            self._lengths.max()
        )

    def step(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Append one token to every running row, and return the next logits (R, V), which are also kept in `logits`."""
        if self._step >= self._max_new:
            raise InputError(
                "The rows have no space left for another token.", expected=f"at most {self._max_new} new tokens"
            )
        self.logits = self._forward(torch.as_tensor(tokens, dtype=torch.long, device=self._bare.device), self._step)
        self._step += 1
        return self.logits

    def _forward(self, ids: torch.Tensor, step: int | torch.Tensor) -> torch.Tensor:
        """Run one token per row (R,) through the model, and return the next logits (R, V)."""
        seen: set[int] = set()
        with torch.no_grad():
            out = self._bare.base_model(
                input_ids=ids[:, None],
                position_ids=(self._positions + step)[:, None],
                attention_mask=torch.ones(PACKED_MASK, device=ids.device),
                use_cache=False,
                taiji_decoding=self,
                taiji_seen=seen,
            )
            check_seen(self._bare, seen)
            return self._head.logits(out.last_hidden_state[:, -1])

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the given running rows (ascending)."""
        kept = np.asarray(rows)
        index = on_device(kept, self._bare.device)
        self._tails = {layer: (k[index], v[index]) for layer, (k, v) in self._tails.items()}
        self.logits = self.logits[index]
        self.prompt_of, self._source = self.prompt_of[kept], self._source[kept]
        self._group()

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Return the attention output (R, 1, Hq, d) of the newest token of each row. Called by the layers of the model.

        Args:
            layer: index of the layer.
            query, key, value: (R, H, 1, d) of the newest tokens.
            scale: scale of the scores; None stands for 1 / sqrt(d).
        """
        rows, heads, _, size = query.shape
        kv = key.shape[1]
        keys, values, unwritten = self._written(layer, key, value)
        common, contents = self._prompts.keys[layer], self._prompts.values[layer]
        each = query.view(rows, kv, heads // kv, size) * (size**-0.5 if scale is None else scale)
        own = torch.bmm(each.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).unflatten(0, (rows, kv))
        own = own if unwritten is None else own + unwritten.to(own.dtype)
        scores = torch.bmm(self._together(each), common.flatten(0, 1).transpose(1, 2))
        if not self._even:
            scores = (scores.unflatten(0, (-1, kv)) + self._prompts.bias.to(scores.dtype)).flatten(0, 1)
        weights = torch.softmax(torch.cat([scores, self._together(own)], 2), -1, dtype=torch.float32).to(query.dtype)
        width = common.shape[2]
        seen = self._apart(torch.bmm(weights[:, :, :width], contents.flatten(0, 1)), kv)
        mixed = torch.bmm(self._apart(weights[:, :, width:], kv).flatten(0, 1), values.flatten(0, 1))
        return (seen + mixed.view(seen.shape)).reshape(rows, 1, heads, -1)

    def _written(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Append the keys and values of the newest tokens, and return the keys and values of all n slots, each (R, Hk,
        n, d).

        The third value is a bias (n,) that masks unwritten slots, or None if all n slots are written.
        """
        if layer not in self._tails:
            self._tails[layer] = self._empty(key), self._empty(value)
        keys, values = self._tails[layer]
        keys[:, :, self._step], values[:, :, self._step] = key[:, :, 0], value[:, :, 0]
        return keys[:, :, : self._step + 1], values[:, :, : self._step + 1], None

    def _empty(self, newest: torch.Tensor) -> torch.Tensor:
        """Return an empty buffer (R, Hk, max_new, d) with the dtype and device of ``newest`` (R, Hk, 1, d)."""
        rows, heads, _, size = newest.shape
        return newest.new_zeros(rows, heads, self._max_new, size)

    def _together(self, rows: torch.Tensor) -> torch.Tensor:
        """Reshape (R, Hk, group, x) to (prompts * Hk, rows per prompt * group, x)."""
        rows = rows if self._slots is None else rows[self._slots]
        return rows.unflatten(0, (len(self._lengths), -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _apart(self, rows: torch.Tensor, kv: int) -> torch.Tensor:
        """Reshape (prompts * Hk, rows per prompt * group, x) back to (R, Hk, group, x)."""
        count = len(self._positions) if self._slots is None else len(self._slots)
        wide = rows.unflatten(0, (-1, kv)).unflatten(2, (count // len(self._lengths), -1)).transpose(1, 2).flatten(0, 1)
        return wide if self._flat is None else wide[self._flat]


class PaddedDecoder:
    """Decoder with the interface of :class:`SharedDecoder` for models that do not support prefix sharing.

    The prompts are left-padded, and the model's own cache is repeated for each row.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int) -> None:
        """See :class:`SharedDecoder`."""
        from transformers import DynamicCache

        counts = row_counts(prompts, copies, max_new)
        self._model, self._left = model, max_new
        device, width = model.device, max(map(len, prompts))
        ids, mask = (torch.zeros((len(prompts), width), dtype=torch.long) for _ in range(2))
        for row, tokens in enumerate(prompts):
            ids[row, width - len(tokens) :], mask[row, width - len(tokens) :] = torch.tensor(tokens), 1
        ids, mask = ids.to(device), mask.to(device)
        self._cache = DynamicCache(config=model.config)
        with torch.no_grad():
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                logits_to_keep=1,
            )
        self.prompt_of = np.repeat(np.arange(len(prompts)), counts)
        index = on_device(self.prompt_of, device)
        self._cache.batch_select_indices(index)
        self._mask, self.logits = mask[index], output.logits[index, -1].float()

    def step(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """See :meth:`SharedDecoder.step`."""
        if self._left < 1:
            raise InputError(
                "The rows have no space left for another token.", expected="no more steps than new tokens requested"
            )
        self._left -= 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        with torch.no_grad():
            output = self._model(
                input_ids=torch.as_tensor(tokens, dtype=torch.long, device=self._mask.device)[:, None],
                attention_mask=self._mask,
                position_ids=self._mask.sum(1, keepdim=True) - 1,
                past_key_values=self._cache,
                logits_to_keep=1,
            )
        self.logits = output.logits[:, -1].float()
        return self.logits

    def select(self, rows: Sequence[int]) -> None:
        """See :meth:`SharedDecoder.select`."""
        index = torch.as_tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(index)
        self._mask, self.logits, self.prompt_of = (
            self._mask[index],
            self.logits[index],
            self.prompt_of[np.asarray(rows)],
        )


Decoder = SharedDecoder | PaddedDecoder | LeanDecoder


def open_decoder(model: Any, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int) -> Decoder:
    """Return a decoder for the model. It keeps one copy of each prompt's keys and values if the model supports this."""
    from taiji.language.prefix_support import supports_sharing

    if not supports_sharing(model)[0]:
        return PaddedDecoder(model, prompts, copies, max_new)
    return shared_decoder(model, prompts, copies, max_new)


def shared_decoder(
    model: Any, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int
) -> SharedDecoder | LeanDecoder:
    """Return the fastest decoder with shared prompts for the model and its device.

    On a CPU this is :class:`LeanDecoder` if it supports the model; on a GPU, the decoder with a CUDA graph.
    """
    from taiji.language.prefix_graph import GraphedDecoder
    from taiji.language.prefix_support import lean_model

    lean = lean_model(model)
    if lean is not None:
        return LeanDecoder(lean, prompts, copies, max_new)
    return (GraphedDecoder if model.device.type == "cuda" else SharedDecoder)(model, prompts, copies, max_new)


def decode_rows(
    decoder: Decoder,
    steps: int,
    choose: Callable[[list[int], int], list[int]],
    ends: Callable[[int, int], bool],
    compact_below: float,
) -> None:
    """Run a decoder until each of its rows has ended or has ``steps`` tokens.

    Args:
        decoder: decoder that has read its prompts and has not made a step yet.
        steps: largest number of tokens per row.
        choose: function of ``(rows, step)`` that returns one token per row of ``decoder.logits``. Some of these rows
            may have ended.
        ends: function of ``(row, token)`` that returns True if the token ends the row. It is called in order for each
            token of a running row.
        compact_below: ended rows are dropped if the share of running rows is below this value. Dropping rows copies the
            buffers.
    """
    running, ended = list(range(len(decoder.prompt_of))), set[int]()
    for step in range(steps):
        chosen = choose(running, step)
        ended.update(row for row, token in zip(running, chosen) if row not in ended and ends(row, token))
        going = [place for place, row in enumerate(running) if row not in ended]
        if not going or step == steps - 1:
            return
        if len(going) < compact_below * len(running):
            decoder.select(going)
            running, chosen = [running[p] for p in going], [chosen[p] for p in going]
        decoder.step(chosen)
