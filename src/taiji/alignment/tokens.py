"""PEPO token weights: tokens grounded in the evidence, and uncertain, get more of the advantage.

Source: PEPO's published formulas. VS_t is the mean cosine of token t's hidden states to the evidence's, over layers
(embedding layer included) and evidence tokens; H_t the entropy of the distribution of token t. The hidden state is taken
at the token's own position while the entropy belongs to the position before: that offset is the method's. Deviation:
weights are detached (the published code lets gradients flow through them; ``pepo_as_released`` does so too). The two differ only
where ratios differ from one: a row's weights sum to a constant, so in the first pass over a batch nothing flows through them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def evidence_similarity(hidden: Sequence[Tensor], evidence: Tensor, tokens: int) -> Tensor:
    """VS (B, T): mean over layers and evidence tokens of cos(h[l, t], v[l, n]).

    Args:
        hidden: one (B, L, H) tensor a layer; the completion is the last ``tokens`` positions.
        evidence: bool (B, P), P <= L - tokens + anything: which of the first P positions are evidence.
        tokens: T.
    """
    share = evidence.to(hidden[0].dtype)
    share = share / share.sum(1, keepdim=True).clamp(min=1)
    total: Tensor = torch.zeros((), device=evidence.device)
    for layer in hidden:
        unit = torch.nn.functional.normalize(layer, dim=-1)
        centre = torch.einsum("bp,bph->bh", share, unit[:, : evidence.size(1)])
        total = total + torch.einsum("bth,bh->bt", unit[:, -tokens:], centre)
    return total / len(hidden)


@dataclass(frozen=True)
class Evidence:
    """Prompt tokens (B, P) that PEPO compares completions with; ``attached`` lets gradients flow through the comparison."""

    mask: Tensor
    attached: bool

    def similarity(self, layers: Sequence[Tensor], rows: Tensor, tokens: int) -> Tensor:
        """VS (b, T) of some rows from their hidden states, one (b, L, H) tensor a layer."""
        hidden = layers if self.attached else [layer.detach() for layer in layers]
        return evidence_similarity(hidden, self.mask[rows], tokens)


def token_weights(
    similarity: Tensor, entropy: Tensor, mask: Tensor, alpha: float = 0.05, temperature: float = 1.0
) -> Tensor:
    """Weights (B, T) > 0 whose mean over each row's valid tokens is one; zero on padding.

    w_t = T softmax_t(VS_t (1 + alpha tanh g_t) / temperature), g = scaled VS + scaled H, centred. A row without valid tokens is
    all zero; a quantity that does not vary over a row scales to zero.
    """
    mask = mask.bool()
    count = mask.sum(1, keepdim=True)

    def scaled(x: Tensor) -> Tensor:
        low = x.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
        high = x.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
        width = torch.where(high > low, high - low, torch.ones_like(high))
        return torch.where(mask & (high > low), (x - low) / width, 0.0)

    both = scaled(similarity) + scaled(entropy)
    gate = both - both.sum(1, keepdim=True) / count.clamp(min=1)
    logits = similarity * (1 + alpha * torch.tanh(gate)) / temperature
    logits = torch.where(mask, logits, torch.full_like(logits, -torch.inf))
    logits = torch.where(count > 0, logits, torch.zeros_like(logits))
    return torch.where(mask, count * torch.softmax(logits, 1), 0.0)


def blended(weights: Tensor, progress: float) -> Tensor:
    """(1 - progress) + progress * w: the schedule from plain GRPO to full weighting, progress in [0, 1]."""
    return (1 - progress) + progress * weights


def evidence_mask(tokenizer: PreTrainedTokenizerBase, prompt_ids: Tensor, prompt_mask: Tensor, pattern: str) -> Tensor:
    """Bool (B, P): prompt tokens that overlap a match of ``pattern``; all real prompt tokens of a row without a match."""
    found = torch.zeros_like(prompt_mask, dtype=torch.bool)
    for row, (ids, mask) in enumerate(zip(prompt_ids.tolist(), prompt_mask.tolist())):
        start, spans, text = 0, [], []
        for position, (token, real) in enumerate(zip(ids, mask)):
            if real:
                piece = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
                spans.append((position, start, start + len(piece)))
                start += len(piece)
                text.append(piece)
        for match in re.finditer(pattern, "".join(text)):
            for position, first, last in spans:
                if first < match.end() and last > match.start():
                    found[row, position] = True
    return torch.where(found.any(1, keepdim=True), found, prompt_mask.bool())


@contextmanager
def hidden_states(model: Any) -> Iterator[list[tuple[Tensor, ...]]]:
    """Collect the hidden states (one tuple of layers a forward) that the model's backbone computes in the block."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    store: list[tuple[Tensor, ...]] = []

    def ask(module: Any, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**keywords, "output_hidden_states": True}

    def keep(module: Any, arguments: Any, output: Any) -> None:
        store.append(output.hidden_states)

    handles = (
        causal.base_model.register_forward_pre_hook(ask, with_kwargs=True),
        causal.base_model.register_forward_hook(keep),
    )
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()
