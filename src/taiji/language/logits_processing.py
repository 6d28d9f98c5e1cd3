"""Processing of a model's logits before a token is drawn, in the same way for every backend.

``docs/explanation/sampling.md`` explains why the repetition penalty covers only the completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from taiji.core.errors import ResourceError
from taiji.nn.devices import on_device

NUCLEUS = 1024
"""Number of most likely tokens that are tried first for `top_p` on a CPU. The whole vocabulary is sorted only if they
do not suffice. On a GPU, the whole vocabulary is always sorted, because the check costs more than the sort."""


@dataclass(frozen=True)
class Sampling:
    """Sampling settings.

    They have the same meaning as in `transformers`' generation configuration, except that the repetition penalty
    ignores the prompt.
    """

    max_new_tokens: int
    temperature: float = 1.0
    """Sampling temperature; 0 always chooses the most likely token."""
    top_k: int = 0
    """Number of most likely tokens kept; 0 keeps the whole vocabulary."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Penalty on tokens that are already in the completion: it divides positive logits and multiplies negative ones."""
    min_new_tokens: int = 0
    """Number of tokens that are drawn before a stop id may be drawn."""


def penalised(logits: torch.Tensor, written: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Return logits (R, V) with the repetition penalty on the tokens that each row has written."""
    if penalty == 1.0:
        return logits
    logits = logits.clone()
    for row, tokens in enumerate(written):
        index = torch.tensor(sorted(set(tokens)), device=logits.device, dtype=torch.long)
        values = logits[row, index]
        logits[row, index] = torch.where(values < 0, values * penalty, values / penalty)
    return logits


def filtered(
    logits: torch.Tensor, sampling: Sampling, written: Sequence[Sequence[int]] = (), banned: Sequence[int] = ()
) -> torch.Tensor:
    """Return logits (R, V) with penalty, temperature and cuts applied; the logits of cut tokens are minus infinity.

    The order is the same as in `transformers`: repetition penalty, banned ids, temperature, top-k, top-p, min-p. Tokens
    that tie at a cut are kept. At temperature 0, only the penalty and the banned ids are applied.

    Args:
        logits: (R, V) of the next token.
        sampling: penalty, temperature and cuts.
        written: R completions so far, as token ids; used only if there is a penalty.
        banned: ids that may not be drawn.
    """
    scores = penalised(logits.float(), written, sampling.repetition_penalty)
    if banned:
        scores = scores.index_fill(1, on_device(np.asarray(banned), scores.device), -torch.inf)
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


def ranked(
    logits: torch.Tensor, sampling: Sampling, written: Sequence[Sequence[int]] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unnormalised probabilities (R, K) float64 and their token ids (R, K), most likely first.

    Penalty, temperature, top-k and top-p are applied; ``min_p`` is not. K is ``top_k``, or V if ``top_k`` is 0. Exactly
    K tokens are kept, whereas :func:`filtered` keeps all tokens that tie at the cut.
    """
    scores = penalised(logits.float(), written, sampling.repetition_penalty)
    top, tokens = scores.topk(min(sampling.top_k or scores.shape[-1], scores.shape[-1]), -1)
    probabilities = torch.softmax(top.double() / sampling.temperature, -1)
    before = probabilities.cumsum(-1) - probabilities
    return torch.where(before < sampling.top_p, probabilities, 0.0), tokens


def picked(
    logits: torch.Tensor, sampling: Sampling, written: Sequence[Sequence[int]], uniform: Sequence[float]
) -> list[int]:
    """Return one token per row.

    At temperature 0, this is the most likely token. Otherwise it is sampled by inverse CDF with the row's uniform
    number.

    Args:
        logits: (R, V) of the next token.
        sampling: penalty, temperature, top-k and top-p; ``min_p`` is not applied.
        written: R completions so far, as token ids.
        uniform: R numbers in [0, 1); not read at temperature 0.

    Raises:
        ResourceError: the logits of a row are NaN.
    """
    vocabulary = logits.shape[-1]
    if sampling.temperature == 0.0:
        return checked(most_likely(filtered(logits, sampling, written)).tolist(), vocabulary)
    probabilities, tokens = ranked(logits, sampling, written)
    mass = probabilities.cumsum(-1)
    numbers = torch.tensor(uniform, dtype=torch.float64, device=logits.device)
    rank = (mass < numbers[:, None] * mass[:, -1:]).sum(-1, keepdim=True)
    found = tokens.gather(1, rank.clamp(max=mass.shape[1] - 1))[:, 0]
    return checked(torch.where(mass[:, -1] > 0, found, vocabulary).tolist(), vocabulary)


def most_likely(scores: torch.Tensor) -> torch.Tensor:
    """Return the id of the largest score of each row (R,); V, the size of the vocabulary, for a row with NaN."""
    tokens = scores.argmax(-1)  # in a row with NaN, this is the first NaN
    wrong = scores.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).isnan()
    return torch.where(wrong, scores.shape[-1], tokens)


def checked(tokens: list[int], vocabulary: int) -> list[int]:
    """Return the token ids if all of them are valid.

    Raises:
        ResourceError: an id is the size of the vocabulary, which stands for logits that are NaN.
    """
    if max(tokens, default=0) >= vocabulary:
        raise ResourceError(
            "The model's logits are NaN, so no token can be drawn.",
            expected="finite logits, or minus infinity for tokens that may not be drawn",
            found=f"{sum(token >= vocabulary for token in tokens)} of {len(tokens)} rows without a distribution",
            fix="lower the learning rate, or load the model in float32",
        )
    return tokens


def drawn(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Sample one token per row by inverse CDF: the first token whose cumulative probability exceeds the uniform number.

    A token of probability zero is never drawn, whatever the uniform number and the rounding errors.

    Args:
        scores: (R, V) logits from :func:`filtered`; each row has at least one above minus infinity.
        uniform: (R,) float64 in [0, 1].

    Returns:
        (R,) token ids; V for a row whose logits are NaN.
    """
    total = torch.softmax(scores, -1).double().cumsum(-1)
    last = total[:, -1]
    below = torch.minimum(uniform * last, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(total, below.unsqueeze(1), right=True).squeeze(1)


def _nucleus_edge(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the smallest score in the nucleus, (R, 1).

    The nucleus is the smallest set of most likely tokens whose total probability reaches `top_p`.
    """
    total = scores.logsumexp(-1, keepdim=True)
    for size in (scores.shape[-1],) if scores.is_cuda else (min(NUCLEUS, scores.shape[-1]), scores.shape[-1]):
        top = scores.topk(size, -1).values
        reached = (top - total).exp().cumsum(-1)
        if size == scores.shape[-1] or bool((reached[:, -1] >= top_p).all()):
            break
    count = (reached < top_p).sum(-1, keepdim=True).clamp(max=size - 1)
    return top.gather(1, count)
