"""Network of the generative decoder. A history is encoded once and shared by several decodings, which are called
groups.

The groups are the training targets of a history, or the beams of a beam search. In shapes, R is the number of
histories, G the number of groups per history, and L the number of code levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.nn.lookup import look_up
from taiji.nn.prefix_blocks import BlockOptions, PrefixBlock
from taiji.nn.query_compressor import QueryCompressor
from taiji.nn.rotary import Turn, turns
from taiji.nn.shared_prefix import Cache, Prefix
from taiji.nn.time_encoding import TimeEncoding

SMALL = 4
"""Divisor that defines a small bucket. A bucket consists of the tokens of a history's items that have the same first
code. If every bucket has at most 1 / SMALL of all past tokens, attention runs over the gathered tokens of the bucket.
Otherwise, it runs over the whole history with a mask."""


@dataclass(frozen=True)
class Past:
    """Histories, oldest interaction first, with padding at the end.

    Attributes:
        codes: (R, n, L) int64 codes of the interactions' items; values at padding are never read.
        times: (R, n, 5) time features of the interactions, if the network uses them.
        long: (R, m, L) codes of earlier interactions, newest first, if the network uses them.
        long_mask: (R, m) bool, False at the padding of ``long``.
    """

    codes: torch.Tensor
    times: torch.Tensor | None = None
    long: torch.Tensor | None = None
    long_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class RequestAttributes:
    """Attributes of a request in addition to its history, if the network uses them.

    Attributes:
        times: (R, G, 5) time features of the next item.
        prompt: (R, G) int64 index of the scenario, 0 for an unknown one.
    """

    times: torch.Tensor | None = None
    prompt: torch.Tensor | None = None

    def spread(self, groups: int) -> RequestAttributes:
        """Return a copy in which the attributes of each request, (R, 1), are repeated for each of its groups,
        (R, groups)."""
        times = None if self.times is None else self.times.expand(-1, groups, -1)
        return RequestAttributes(times, None if self.prompt is None else self.prompt.expand(-1, groups))


@dataclass(frozen=True)
class Memory:
    """State computed once per history.

    Attributes:
        layers: keys and values (R, h, P, e) of each decoder block, for h heads of width e and P tokens.
        first: (R, P) first code of each token's item, −1 for tokens without an item.
        fixed: number of tokens before the first interaction; every group sees them.
    """

    layers: list[Cache]
    first: torch.Tensor
    fixed: int


class CodeNetwork(nn.Module):
    """Causal transformer over a history and the codes of the next item.

    Args:
        sizes: number of codes per level.
        settings: widths and options.
        scenarios: number of prompts, including the one for unknown scenarios.
    """

    def __init__(self, sizes: tuple[int, ...], settings: CodeDecoderSettings, scenarios: int = 1) -> None:
        super().__init__()
        s, width, levels = settings, settings.width, len(sizes)
        self.sizes, self.settings = sizes, settings
        self.offsets = [sum(sizes[:level]) for level in range(levels)]
        self.per_item = levels if s.tokens == "codes" else 1
        self.extra = s.queries if s.long_history else 0
        self.head_width = width // s.heads
        cross = s.architecture == "encoder-decoder"
        self.table = nn.Parameter(torch.randn(sum(sizes), width) * 0.02)
        self.start, self.begin = nn.Parameter(torch.randn(width) * 0.02), nn.Parameter(torch.randn(width) * 0.02)
        plain = BlockOptions(query_key_norm=s.query_key_norm, gate=s.gate)
        options = BlockOptions(s.query_key_norm, s.gate, s.short > 0, s.experts, s.chosen_experts, s.balance)

        def blocks(count: int, crossed: bool, options: BlockOptions) -> nn.ModuleList:
            hidden = s.expansion * width
            return nn.ModuleList(PrefixBlock(width, s.heads, hidden, s.dropout, crossed, options) for _ in range(count))

        self.encoder = blocks(s.layers if cross else 0, False, plain)
        self.encoder_norm = nn.LayerNorm(width) if cross else None
        self.blocks = blocks(s.layers, cross, options)
        self.norm = nn.LayerNorm(width)
        self.light = blocks(levels - 1 if s.multi_token else 0, cross, options)
        self.merges = nn.ModuleList(nn.Linear(2 * width, width) for _ in self.light)
        self.thoughts = nn.Parameter(torch.randn(levels, width) * 0.02) if s.thinking != "off" else None
        if s.long_history:
            self.compressor = QueryCompressor(width, s.heads, s.queries)
            self.long_position = nn.Parameter(torch.randn(s.long_history, width) * 0.02)
        self.time = TimeEncoding(width) if s.time else None
        self.begin_time = TimeEncoding(width) if s.time else None
        self.prompts = nn.Parameter(torch.zeros(scenarios, width)) if s.scenario else None

    # Encoding of the history.

    def embed(self, level: int, codes: torch.Tensor) -> torch.Tensor:
        """Return the input vectors (…, d) of codes (…) of a level."""
        return look_up(self.table, codes + self.offsets[level]) * self.table.shape[1] ** 0.5

    def read(self, past: Past) -> Memory:
        """Return the keys and values of the histories' tokens."""
        rows = len(past.codes)
        items = self._tokens(past.codes)
        if self.time is not None:
            assert past.times is not None
            items = items + self.time(past.times).repeat_interleave(self.per_item, dim=1)
        x = torch.cat([self.start.expand(rows, 1, -1), items], dim=1)
        x = self._dropped(x)
        if self.extra:
            assert past.long is not None and past.long_mask is not None
            long = self._tokens(past.long).unflatten(1, (-1, self.per_item)) + self.long_position[:, None]
            mask = past.long_mask.repeat_interleave(self.per_item, dim=1)
            x = torch.cat([self.compressor(long.flatten(1, 2), mask), x], dim=1)
        fixed = self.extra + 1
        first = functional.pad(past.codes[..., 0].repeat_interleave(self.per_item, dim=1), (fixed, 0), value=-1)
        turn = turns(torch.arange(x.shape[1], device=x.device), self.head_width, x)
        encoder, blocks = cast("list[PrefixBlock]", self.encoder), cast("list[PrefixBlock]", self.blocks)
        if self.encoder_norm is not None:
            for block in encoder:
                x, _ = block.encode(x, turn)
            x = self.encoder_norm(x)
            return Memory([block.shared(x, turn) for block in blocks], first, fixed)
        layers = []
        for block in blocks:
            x, shared = block.encode(x, turn)
            layers.append(shared)
        return Memory(layers, first, fixed)

    def _tokens(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the tokens (R, n · tokens per item, d) of interactions given by their codes (R, n, L)."""
        levels = codes.shape[-1]
        parts = torch.stack([self.embed(level, codes[..., level]) for level in range(levels)], dim=2)
        return parts.flatten(1, 2) if self.per_item > 1 else parts.sum(dim=2) * levels**-0.5

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.settings.dropout, self.training)

    # Decoding of the codes, by groups.

    def states(
        self, memory: Memory, seen: torch.Tensor, codes: torch.Tensor, asked: RequestAttributes | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the states that predict each code given the true codes before it, and the states of any thinking
        steps.

        Args:
            memory: keys and values of R histories, from :meth:`read`.
            seen: (R, G) number of interactions that each group may read.
            codes: (R, G, L) codes of the next item.
            asked: attributes of each group.

        Returns:
            The predicting states (R, G, L, d) and the states of the thinking steps (R, G, L, d), which are None without
            thinking steps.
        """
        decoding = Decoding(self, memory, seen, asked)
        levels = range(len(self.sizes))
        if len(self.light) or self.thoughts is not None:
            found = [decoding.next(level, codes[..., max(level - 1, 0)]) for level in levels]
            return torch.stack(found, dim=2), torch.stack(decoding.thought, dim=2) if decoding.thought else None
        inputs = [self.embed(level, codes[..., level]) for level in levels[:-1]]
        return decoding.step(torch.stack([decoding.begin(), *inputs], dim=2), decoding.masks(codes)), None

    def logits(self, level: int, states: torch.Tensor) -> torch.Tensor:
        """Return logits (…, V) of the codes of a level for states (…, d)."""
        return states @ self.level_table(level).T

    def level_table(self, level: int) -> torch.Tensor:
        """Return the vectors (V, d) of the codes of a level."""
        return self.table[self.offsets[level] : self.offsets[level] + self.sizes[level]]


class Decoding:
    """State of a decoding: the keys and values of each group's own tokens, in addition to the shared memory of the
    history.

    Args:
        network: network that decodes.
        memory: keys and values of the histories.
        seen: (R, G) number of interactions that each group may read; G is 1 for a beam search, whose beams all read the
            same history.
        asked: attributes of each group.

    Attributes:
        thought: states (R, G, d) of the thinking steps so far, one per level.
    """

    def __init__(
        self, network: CodeNetwork, memory: Memory, seen: torch.Tensor, asked: RequestAttributes | None = None
    ) -> None:
        self.network, self.memory, self.asked = network, memory, asked or RequestAttributes()
        self.place = memory.fixed + seen * network.per_item
        self.past: list[Cache | None] = [None] * len(memory.layers)
        self.taken, self.small = 0, False
        self.thought: list[torch.Tensor] = []
        self.hidden: torch.Tensor | None = None
        places = torch.arange(memory.first.shape[1], device=seen.device)
        visible = self.place[..., None]
        self.mask = (places < visible)[:, :, None]
        recent = (places >= visible - network.settings.short * network.per_item) | (places < memory.fixed)
        self.recent = self.mask & recent[:, :, None] if network.settings.short else None

    def begin(self) -> torch.Tensor:
        """Return the first token (R, G, d) of each group."""
        begin = self.network.begin.expand(*self.place.shape, -1)
        if self.network.begin_time is not None:
            assert self.asked.times is not None
            begin = begin + self.network.begin_time(self.asked.times)
        if self.network.prompts is not None and self.asked.prompt is not None:
            begin = begin + self.network.prompts[self.asked.prompt]
        return begin

    def masks(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the attention mask over the history for the L tokens of groups with codes (R, G, L): (R, G, L, P), or
        (R, G, 1, P) if all tokens have the same mask."""
        if not self.network.settings.bucket:
            return self.mask
        rest = self.bucket(codes[..., 0]).expand(-1, -1, codes.shape[-1] - 1, -1)
        return torch.cat([self.mask.expand(-1, codes.shape[1], -1, -1), rest], dim=2)

    def bucket(self, first: torch.Tensor) -> torch.Tensor:
        """Return the attention mask (R, G, 1, P) of groups with first codes (R, G). It covers the interactions whose
        item has the group's first code, or all interactions if there are none."""
        held = self.memory.first[:, None]
        shared = (held == first[..., None])[:, :, None] & self.mask
        some = shared.any(dim=-1, keepdim=True)
        return torch.where(some, shared | ((held == -1)[:, :, None] & self.mask), self.mask)

    def step(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Process T further tokens (R, G, T, d) of each group, return their states (R, G, T, d), and cache their keys
        and values."""
        network, count = self.network, x.shape[2]
        x, turn = network._dropped(x), self._turn(count, x)
        for at, block in enumerate(network.blocks):
            x, self.past[at] = block(x, turn, self._prefix(at, mask), self.past[at])
        self.taken += count
        self.hidden = x[:, :, -1]
        return network.norm(x)  # type: ignore[no-any-return]

    def next(self, level: int, codes: torch.Tensor) -> torch.Tensor:
        """Return the states (R, G, d) that predict the code of a level, given the codes (R, G) of the previous
        level."""
        network = self.network
        if level == 1 and network.settings.bucket:
            self.mask = self.bucket(codes)
            self.recent = None if self.recent is None else self.recent & self.mask
            self.small = int(self.mask.sum(dim=-1).max()) * SMALL <= self.mask.shape[-1]
        x = network.embed(level - 1, codes) if level else self.begin()
        if level and len(network.light):
            assert self.hidden is not None
            x = network.merges[level - 1](torch.cat([self.hidden, x], dim=-1))
            self.taken += 1
            turn = self._turn(1, x)
            x, _ = network.light[level - 1](x[:, :, None], turn, self._prefix(-1, None), None)
            self.hidden = x[:, :, 0]
            return network.norm(self.hidden)  # type: ignore[no-any-return]
        state = self.step(x[:, :, None])
        if network.thoughts is not None:
            self.thought.append(state[:, :, 0])
            mark = network.thoughts[level].expand_as(state)
            state = self.step(mark + state if network.settings.thinking == "latent" else mark)
        return state[:, :, 0]

    def select(self, parents: torch.Tensor) -> None:
        """Replace the groups by the groups at the indices ``parents`` (R, K)."""
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        for at, held in enumerate(self.past):
            if held is not None:
                key, value = (part[rows, :, parents].movedim(2, 1) for part in held)
                self.past[at] = key, value
        if self.hidden is not None:
            self.hidden = self.hidden[rows, parents]
        if self.mask.shape[1] > 1:
            self.mask = self.mask[rows, parents]
            self.recent = None if self.recent is None else self.recent[rows, parents]

    def _turn(self, count: int, like: torch.Tensor) -> Turn:
        """Return the rotations (R, 1, G, T, e) of the next tokens."""
        place = self.place[..., None] + torch.arange(self.taken, self.taken + count, device=self.place.device)
        return turns(place[:, None], self.network.head_width, like)

    def _prefix(self, layer: int, mask: torch.Tensor | None) -> Prefix:
        keys, values = self.memory.layers[layer]
        mask = self.mask if mask is None else mask
        recent = self.recent
        if recent is not None and mask is not self.mask:
            recent = recent & mask
        prefix = Prefix(keys, values, mask, recent)
        return prefix.gathered() if self.small else prefix


class BeamScorer:
    """Scoring callback for :func:`taiji.nn.beam_search.beam_search`. All beams share the keys and values of the
    history. At each level, every beam copies the keys and values of its codes from its parent beam."""

    def __init__(
        self, network: CodeNetwork, memory: Memory, seen: torch.Tensor, asked: RequestAttributes | None = None
    ) -> None:
        self.decoding = Decoding(network, memory, seen[:, None], asked)

    def __call__(self, level: int, parents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (R, K, V) of the level's codes for each of the K beams."""
        network, device = self.decoding.network, self.decoding.place.device
        if level:
            self.decoding.select(parents.to(device))
        states = self.decoding.next(level, codes.to(device))
        return torch.log_softmax(network.logits(level, states), dim=-1)
