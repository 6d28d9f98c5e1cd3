"""Sample several completions of each prompt with the prompt read once (`prefix_decode`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from taiji.language.prefix_decode import SharedDecoder
from taiji.language.prefix_lora import merged_adapters

COMPACT_BELOW = 0.8
"""Ended rows leave the batch when fewer than this share of its rows still run (leaving costs a copy of the buffers)."""
NUCLEUS = 1024
"""Likeliest tokens looked at first for `top_p`; the whole vocabulary is sorted only where they do not suffice."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the meanings are those of `transformers`' generation configuration."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """0 looks at the whole vocabulary."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and completion, as in `transformers`."""
    min_new_tokens: int = 0
    """No stop id is drawn before this many tokens."""


def filtered(
    logits: torch.Tensor, sampling: Sampling, written: Sequence[Sequence[int]] | None = None, banned: Sequence[int] = ()
) -> torch.Tensor:
    """(R, V) logits with the penalty, temperature and cuts applied; what is cut is minus infinity.

    Order as in `transformers`: repetition penalty, banned ids, temperature, top-k, top-p, min-p. Ties at a cut stay in.
    """
    scores = logits.float()
    if sampling.repetition_penalty != 1.0 and written is not None:
        scores = scores.clone()
        for row, tokens in enumerate(written):
            index = torch.tensor(sorted(set(tokens)), device=scores.device)
            values = scores[row, index]
            scores[row, index] = torch.where(
                values < 0, values * sampling.repetition_penalty, values / sampling.repetition_penalty
            )
    if banned:
        scores = scores.index_fill(1, torch.tensor(list(banned), device=scores.device), -torch.inf)
    if sampling.temperature == 0.0:
        return scores
    if sampling.temperature != 1.0:
        scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(sampling.top_k, -1).values[:, -1:], -torch.inf)
    if sampling.top_p < 1.0:
        scores = scores.masked_fill(scores < _nucleus_edge(scores, sampling.top_p), -torch.inf)
    if sampling.min_p > 0.0:
        edge = scores.amax(-1, keepdim=True) + torch.log(torch.tensor(sampling.min_p))
        scores = scores.masked_fill(scores < edge, -torch.inf)
    return scores


def _nucleus_edge(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """(R, 1) the smallest score inside the nucleus: the likeliest tokens whose probability reaches `top_p`."""
    total = scores.logsumexp(-1, keepdim=True)
    for size in (min(NUCLEUS, scores.shape[-1]), scores.shape[-1]):
        top = scores.topk(size, -1).values
        reached = (top - total).exp().cumsum(-1)
        if size == scores.shape[-1] or bool((reached[:, -1] >= top_p).all()):
            break
    count = (reached < top_p).sum(-1, keepdim=True).clamp(max=size - 1)
    return top.gather(1, count)


def generate_shared(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int | Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
    merge: bool = True,
) -> list[list[int]]:
    """Continue every prompt `n` times.

    Args:
        model: a causal LM that `supports_sharing`; it is run in evaluation mode and left as it was.
        prompts: token ids without padding.
        n: completions of each prompt, one number or one per prompt.
        sampling: how tokens are drawn.
        stop_ids: ids that end a completion; they are its last token.
        generator: source of randomness; None is torch's global one.
        merge: whether LoRA adapters are merged into the weights meanwhile.

    Returns:
        Token ids, the n completions of the first prompt, then those of the second, …
    """
    from contextlib import nullcontext

    modules = [m for m in model.modules() if m.training]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad(), merged_adapters(model) if merge else nullcontext():
            return _run(
                SharedDecoder(model, prompts, n, sampling.max_new_tokens),
                prompts,
                sampling,
                frozenset(stop_ids),
                generator,
            )
    finally:
        for module in modules:
            module.training = True


def _run(
    decoder: SharedDecoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stops: frozenset[int],
    generator: torch.Generator | None,
) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in decoder.prompt_of]
    before = [list(prompts[p]) for p in decoder.prompt_of.tolist()]
    running, ended = list(range(len(written))), set[int]()
    for step in range(sampling.max_new_tokens):
        texts = [before[r] + written[r] for r in running] if sampling.repetition_penalty != 1.0 else None
        scores = filtered(decoder.logits, sampling, texts, sorted(stops) if step < sampling.min_new_tokens else ())
        if sampling.temperature == 0.0:
            tokens = scores.argmax(-1)
        else:
            # What torch.multinomial does for one draw, with noise for the ended rows too: the same stream, and so the same
            # tokens, as in a batch that carries them along (`transformers` does).
            noise = torch.empty(len(written), scores.shape[-1], device=scores.device).exponential_(
                1, generator=generator
            )
            tokens = (torch.softmax(scores, -1) / noise[running]).argmax(-1)
        chosen = tokens.tolist()
        for row, token in zip(running, chosen):
            if row not in ended:
                written[row].append(token)
                if token in stops:
                    ended.add(row)
        going = [place for place, row in enumerate(running) if row not in ended]
        if not going or step == sampling.max_new_tokens - 1:
            break
        if len(going) < COMPACT_BELOW * len(running):
            decoder.select(going)
            running, chosen = [running[p] for p in going], [chosen[p] for p in going]
        decoder.step(chosen)
    return written
