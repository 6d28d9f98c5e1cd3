"""PEPO token weights: tokens that are similar to the evidence, and uncertain, receive more of the advantage.

Source: PEPO's published formulas. VS_t is the mean cosine between the hidden states of token t and those of the
evidence, over layers (including the embedding layer) and evidence tokens; H_t is the entropy of the distribution of
token t. The hidden state is taken at the position of the token, while the entropy belongs to the position before it:
this offset is part of the method. There is one deviation: weights are detached, while the published code (and
``pepo_as_released``) lets gradients flow through them. In the first pass over a batch, all probability ratios are one,
and these gradients cancel, because the weights of a row sum to a constant. So the two versions differ only in later
passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def evidence_similarity(hidden: Sequence[Tensor], evidence: Tensor, tokens: int) -> Tensor:
    """Return VS (B, T), the mean of cos(h[l, t], h[l, n]) over layers l and evidence tokens n, with hidden states h.

    Args:
        hidden: one (B, length, width) tensor per layer; the completion is in the last ``tokens`` positions.
        evidence: bool (B, P), True for the evidence tokens among the first P positions.
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
    """Prompt tokens (B, P) with which PEPO compares completions. If ``attached``, gradients flow through the
    comparison."""

    mask: Tensor
    attached: bool

    def similarity(self, layers: Sequence[Tensor], rows: Tensor, tokens: int) -> Tensor:
        """Return VS (b, T) of the given rows from their hidden states, one (b, length, width) tensor per
        layer."""
        hidden = layers if self.attached else [layer.detach() for layer in layers]
        return evidence_similarity(hidden, self.mask[rows], tokens)


def token_weights(
    similarity: Tensor, entropy: Tensor, mask: Tensor, alpha: float = 0.05, temperature: float = 1.0
) -> Tensor:
    """Return weights (B, T) > 0 whose mean over the valid tokens of each row is one; zero on padding.

    w_t = n softmax_t(VS_t (1 + alpha tanh g_t) / temperature), where n is the number of valid tokens. g is the sum of
    VS and H, each scaled to [0, 1] within the row, minus the row's mean of this sum. A row without valid tokens is all
    zero; VS or H that is constant over a row is scaled to zero.
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
    """Return (1 - progress) + progress * w, the schedule from plain GRPO to full weighting, with progress in [0, 1]."""
    return (1 - progress) + progress * weights


def evidence_mask(tokenizer: PreTrainedTokenizerBase, prompt_ids: Tensor, prompt_mask: Tensor, pattern: str) -> Tensor:
    """Return a mask (B, P): True for prompt tokens that overlap a match of ``pattern``; in a row without a match, True
    for all real prompt tokens."""
    found = torch.zeros_like(prompt_mask, dtype=torch.bool)
    for row, (ids, mask) in enumerate(zip(prompt_ids.tolist(), prompt_mask.tolist())):
        start, spans, text = 0, [], []
        places = [position for position, real in enumerate(mask) if real]
        for position, piece in zip(places, _pieces(tokenizer, [ids[position] for position in places])):
            spans.append((position, start, start + len(piece)))
            start += len(piece)
            text.append(piece)
        for match in re.finditer(pattern, "".join(text)):
            for position, first, last in spans:
                if first < match.end() and last > match.start():
                    found[row, position] = True
    return torch.where(found.any(1, keepdim=True), found, prompt_mask.bool())


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Iterator[str]:
    """Yield the text of each token as it is decoded after the token before it.

    Many tokenizers drop the leading space of a token that is decoded alone.
    """

    def decoded(*tokens: int) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    alone = [decoded(token) for token in ids]
    yield from alone[:1]
    for (before, known), (token, own) in pairwise(zip(ids, alone)):
        both = decoded(before, token)
        yield both[len(known) :] if both.startswith(known) else own


@contextmanager
def hidden_states(model: Any) -> Iterator[list[tuple[Tensor, ...]]]:
    """Collect the hidden states that the model's backbone computes inside the block, one tuple of layers per forward
    pass."""
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
