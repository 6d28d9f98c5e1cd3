"""Network of the generative decoder: the history is read once, item codes are decoded in many groups that share it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.nn.lookup import look_up
from taiji.nn.prefix_attention import Cache, Prefix
from taiji.nn.prefix_blocks import BlockOptions, PrefixBlock


@dataclass(frozen=True)
class Past:
    """Histories, oldest interaction first, padding behind.

    Attributes:
        codes: (R, n, L) int64; what stands at the padding is not read by anybody who sees less.
    """

    codes: torch.Tensor


@dataclass(frozen=True)
class Memory:
    """What is computed once per history.

    Attributes:
        layers: keys and values (R, h, P, e) of each decoder block. first: (R, P) first code of each token, −1 for those of no item.
        fixed: tokens before the first interaction.
    """

    layers: list[Cache]
    first: torch.Tensor
    fixed: int


class CodeNetwork(nn.Module):
    """Causal transformer over a history and the codes of the item after it.

    Args:
        sizes: codes per level. settings: widths and options.
    """

    def __init__(self, sizes: tuple[int, ...], settings: CodeDecoderSettings) -> None:
        super().__init__()
        s, width, levels = settings, settings.width, len(sizes)
        self.sizes, self.settings = sizes, settings
        self.offsets = [sum(sizes[:level]) for level in range(levels)]
        self.per_item = levels if s.tokens == "codes" else 1
        cross = s.architecture == "encoder-decoder"
        self.table = nn.Parameter(torch.randn(sum(sizes), width) * 0.02)
        self.start, self.begin = nn.Parameter(torch.randn(width) * 0.02), nn.Parameter(torch.randn(width) * 0.02)
        longest = 1 + s.history * self.per_item + levels
        self.position = nn.Parameter(torch.randn(longest, width) * 0.02)

        def block(crossed: bool, options: BlockOptions) -> PrefixBlock:
            return PrefixBlock(width, s.heads, s.expansion * width, s.dropout, crossed, options)

        plain = BlockOptions(query_key_norm=s.query_key_norm, gate=s.gate)
        options = BlockOptions(s.query_key_norm, s.gate, s.short > 0, s.experts, s.chosen_experts, s.balance)
        self.encoder = nn.ModuleList(block(False, plain) for _ in range(s.layers if cross else 0))
        self.encoder_norm = nn.LayerNorm(width) if cross else None
        self.blocks = nn.ModuleList(block(cross, options) for _ in range(s.layers))
        self.norm = nn.LayerNorm(width)

    # The history, once.

    def embed(self, level: int, codes: torch.Tensor) -> torch.Tensor:
        """Return the input vectors (…, d) of a level's codes (…)."""
        return look_up(self.table, codes + self.offsets[level]) * self.table.shape[1] ** 0.5

    def read(self, past: Past) -> Memory:
        """Return the keys and values of histories."""
        codes = past.codes
        rows, count, levels = codes.shape
        parts = torch.stack([self.embed(level, codes[..., level]) for level in range(levels)], dim=2)
        items = parts.flatten(1, 2) if self.per_item > 1 else parts.sum(dim=2) * levels**-0.5
        x = torch.cat([self.start.expand(rows, 1, -1), items], dim=1)
        x = functional.dropout(x + self.position[: x.shape[1]], self.settings.dropout, self.training)
        first = functional.pad(codes[..., 0].repeat_interleave(self.per_item, dim=1), (1, 0), value=-1)
        if self.encoder_norm is not None:
            for block in self.encoder:
                x, _ = block.encode(x)
            x = self.encoder_norm(x)
            return Memory([block.shared(x) for block in self.blocks], first, 1)
        layers = []
        for block in self.blocks:
            x, shared = block.encode(x)
            layers.append(shared)
        return Memory(layers, first, 1)

    # The codes, in groups.

    def states(self, memory: Memory, seen: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the states (R, G, L, d) that tell each code, given the true ones before it.

        Args:
            memory: of R histories. seen: (R, G) interactions that each group has seen. codes: (R, G, L) of the next item.
        """
        inputs = [self.embed(level, codes[..., level]) for level in range(len(self.sizes) - 1)]
        decoding = Decoding(self, memory, seen)
        begin = self.begin.expand(*seen.shape, -1)
        return decoding.step(torch.stack([begin, *inputs], dim=2))

    def logits(self, level: int, states: torch.Tensor) -> torch.Tensor:
        """Return (…, V) of the codes of a level for states (…, d)."""
        return states @ self.level_table(level).T

    def level_table(self, level: int) -> torch.Tensor:
        """Return the vectors (V, d) of a level's codes."""
        return self.table[self.offsets[level] : self.offsets[level] + self.sizes[level]]


class Decoding:
    """Decoding under way: own keys and values of each group beside the memory that the groups share.

    Args:
        network, memory: see there. seen: (R, G) interactions that each group may see; G is 1 for a beam search.
    """

    def __init__(self, network: CodeNetwork, memory: Memory, seen: torch.Tensor) -> None:
        self.network, self.memory = network, memory
        self.visible = memory.fixed + seen * network.per_item
        self.past: list[Cache | None] = [None] * len(memory.layers)
        self.taken = 0
        places = torch.arange(memory.first.shape[1], device=seen.device)
        self.mask = (places < self.visible[..., None])[:, :, None]

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Return the states (R, G, T, d) after further tokens (R, G, T, d), and remember these."""
        network, count = self.network, x.shape[2]
        place = self.visible[..., None] + torch.arange(self.taken, self.taken + count, device=x.device)
        x = functional.dropout(x + network.position[place], network.settings.dropout, network.training)
        for at, block in enumerate(network.blocks):
            keys, values = self.memory.layers[at]
            x, self.past[at] = block(x, Prefix(keys, values, self.mask), self.past[at])
        self.taken += count
        return network.norm(x)  # type: ignore[no-any-return]

    def next(self, level: int, codes: torch.Tensor) -> torch.Tensor:
        """Return the states (R, G, d) that tell the code of a level, after the codes (R, G) of the level before."""
        network = self.network
        if level == 0:
            x = network.begin.expand(*codes.shape, -1)
        else:
            x = network.embed(level - 1, codes)
        return self.step(x[:, :, None])[:, :, 0]

    def select(self, parents: torch.Tensor) -> None:
        """Go on with the groups ``parents`` (R, K) in place of the ones there are."""
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        for at, held in enumerate(self.past):
            if held is not None:
                key, value = (part[rows, :, parents].movedim(2, 1) for part in held)
                self.past[at] = key, value


class BeamScorer:
    """Callback of :func:`taiji.nn.beam_search.beam_search` over a network: the history stays one, the beams' own keys move."""

    def __init__(self, network: CodeNetwork, memory: Memory, seen: torch.Tensor) -> None:
        self.decoding = Decoding(network, memory, seen[:, None])

    def __call__(self, level: int, parents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, K, V) of the level's codes."""
        network, device = self.decoding.network, self.decoding.visible.device
        if level:
            self.decoding.select(parents.to(device))
        states = self.decoding.next(level, codes.to(device))
        return torch.log_softmax(network.logits(level, states), dim=-1)
