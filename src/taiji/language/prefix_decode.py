"""Decode many continuations of each prompt while the prompt's keys and values exist once.

The prompts are read in one packed pass (no padding). Then each step runs one token per row through the model; its
attention joins two pieces: all rows of a prompt against that prompt's keys in one matrix product, and each row against
its own continuation, kept in a buffer of fixed size. Nothing is copied per row, and rows leave when they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from taiji.errors import TaijiError
from taiji.language.prefix_forward import bare_model, packed_hidden
from taiji.language.prefix_head import head_of
from taiji.language.prefix_tree import PackedTree


class _Prompts:
    """Keys and values of the packed prompts, as the layers compute them."""

    def __init__(self, paths: list[torch.Tensor]) -> None:
        self.paths = paths
        self.keys: dict[int, list[torch.Tensor]] = {}
        self.values: dict[int, list[torch.Tensor]] = {}

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store a layer's (1, Hk, T, d) as one contiguous (Hk, P, d) per prompt."""
        self.keys[layer] = [key[0, :, path].contiguous() for path in self.paths]
        self.values[layer] = [value[0, :, path].contiguous() for path in self.paths]


class SharedDecoder:
    """The running state of rows that continue prompts.

    Attributes:
        logits: (R, V) fp32, the next token's logits of each running row.
        prompt_of: for each running row the number of its prompt.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int) -> None:
        """Read the prompts.

        Args:
            model: a causal LM that `supports_sharing`, in evaluation mode.
            prompts: token ids; equal prompts are read once.
            copies: rows of each prompt.
            max_new: longest continuation, in tokens.
        """
        counts = [copies] * len(prompts) if isinstance(copies, int) else list(copies)
        if len(counts) != len(prompts) or min(counts, default=0) < 1 or max_new < 1:
            raise TaijiError("There is nothing to decode.", expected="at least one row per prompt and one new token", found=f"rows {counts[:8]}, {max_new} tokens")
        self._model, self._bare, self._head = model, bare_model(model), head_of(bare_model(model))
        unique: dict[tuple[int, ...], int] = {}
        numbers = [unique.setdefault(tuple(p), len(unique)) for p in prompts]
        tree = PackedTree(list(unique))
        self._prompts = _Prompts([torch.from_numpy(path).to(self._bare.device) for path in tree.paths])
        with torch.no_grad():
            states = packed_hidden(model, tree, self._prompts)
            last = self._head.logits(states[[int(path[-1]) for path in tree.paths]])
        self.prompt_of = np.repeat(np.arange(len(prompts)), counts)
        # Rows of equal prompts must be neighbours for the product with the shared keys, whatever the caller's order.
        self._source = np.repeat(np.asarray(numbers), counts)
        self._order = np.argsort(self._source, kind="stable")
        self.logits = last[torch.from_numpy(self._source).to(last.device)]
        self._lengths = np.asarray([len(p) for p in unique])
        self._max_new, self._step = max_new, 0
        self._tails: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._group()

    def _group(self) -> None:
        """Row ranges (in the inner order) of each prompt, and the way between the inner and the caller's order."""
        inner = self._source[self._order]
        edges = np.flatnonzero(np.diff(inner)) + 1
        starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(inner)]
        self._groups = [(int(inner[a]), a, b) for a, b in zip(starts, stops)]
        device = self._bare.device
        in_order = bool((self._order[1:] > self._order[:-1]).all())
        self._inward = None if in_order else torch.from_numpy(self._order).to(device)
        self._outward = None if in_order else torch.from_numpy(np.argsort(self._order)).to(device)
        self._positions = torch.from_numpy(self._lengths[inner]).to(device)

    def step(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Append one token to every running row; returns (and keeps in `logits`) the next logits (R, V)."""
        if self._step >= self._max_new:
            raise TaijiError("The rows are full.", expected=f"at most {self._max_new} new tokens")
        ids = torch.as_tensor(tokens, dtype=torch.long, device=self._bare.device)
        ids = ids if self._inward is None else ids[self._inward]
        with torch.no_grad():
            out = self._bare.base_model(
                input_ids=ids[:, None],
                position_ids=(self._positions + self._step)[:, None],
                attention_mask=torch.ones(1, 1, 1, 1, device=ids.device),
                use_cache=False,
                taiji_decoding=self,
            )
            logits = self._head.logits(out.last_hidden_state[:, -1])
        self._step += 1
        self.logits = logits if self._outward is None else logits[self._outward]
        return self.logits

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these of the running rows only (ascending)."""
        kept = np.asarray(rows)
        place = np.argsort(self._order)[kept]  # inner places of the kept rows
        inner = np.sort(place)
        index = torch.from_numpy(inner).to(self._bare.device)
        self._tails = {layer: (k[index], v[index]) for layer, (k, v) in self._tails.items()}
        self.logits = self.logits[torch.from_numpy(kept).to(self.logits.device)]
        self.prompt_of, self._source = self.prompt_of[kept], self._source[kept]
        self._order = np.argsort(place)
        self._group()

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        """Attention of the newest token of each row: (R, H, 1, d) -> (R, 1, Hq, d). Called by the model's layers."""
        rows, heads, _, size = query.shape
        kv = key.shape[1]
        scale = size**-0.5 if scale is None else scale
        if layer not in self._tails:
            self._tails[layer] = tuple(t.new_empty(rows, kv, self._max_new, t.shape[3]) for t in (key, value))  # type: ignore[assignment]
        keys, values = self._tails[layer]
        now = self._step + 1
        keys[:, :, self._step], values[:, :, self._step] = key[:, :, 0], value[:, :, 0]
        keys, values = keys[:, :, :now].flatten(0, 1), values[:, :, :now].flatten(0, 1)
        each = query.view(rows, kv, heads // kv, size) * scale
        own = torch.bmm(each.flatten(0, 1), keys.transpose(1, 2)).view(rows, kv, heads // kv, now)
        out = query.new_empty(rows, kv, heads // kv, value.shape[3])
        for prompt, start, stop in self._groups:
            k, v = self._prompts.keys[layer][prompt], self._prompts.values[layer][prompt]
            mine = each[start:stop].transpose(0, 1).flatten(1, 2)  # (Hk, rows * group, d)
            scores = torch.cat([torch.bmm(mine, k.transpose(1, 2)), own[start:stop].transpose(0, 1).flatten(1, 2)], 2)
            weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
            seen = torch.bmm(weights[:, :, : k.shape[1]], v).unflatten(1, (stop - start, -1)).transpose(0, 1)
            tail = weights[:, :, k.shape[1] :].unflatten(1, (stop - start, -1)).transpose(0, 1).flatten(0, 1)
            mixed = torch.bmm(tail, values[start * kv : stop * kv])
            torch.add(seen, mixed.view(stop - start, kv, heads // kv, -1), out=out[start:stop])
        return out.view(rows, 1, heads, -1)
