"""Log-probabilities of given tokens from hidden states, without the full (positions x vocabulary) matrix of logits.

Only positions that predict a scored token are projected to logits, in chunks. If the head is frozen (as with LoRA), the
backward pass needs no further projection. The gradient of a log-probability with respect to its hidden state is
`W[token] - E_p[W]`. The expected row `E_p[W] = p @ W` is computed together with the log-probability, while the
probabilities of the chunk are in memory. Several backward passes (such as one per reward) thus need no further product
with the matrix `W`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 1 << 23
"""Number of logits per chunk (32 MB in float32)."""


@dataclass(frozen=True)
class Head:
    """Output layer of a causal LM: `logits = cap * tanh(scale * module(h) / cap)`, without the cap if it is None."""

    module: Any
    scale: float = 1.0
    cap: float | None = None

    @property
    def frozen(self) -> bool:
        """True if the head is a plain linear layer without trainable weights. Its backward pass needs no projection."""
        module = self.module
        plain = type(module) is torch.nn.Linear and "forward" not in module.__dict__
        return plain and not any(p.requires_grad for p in module.parameters())

    def shape(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale and cap raw logits, at least in float32."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (..., V), at least in float32, from hidden states (..., H)."""
        return self.shape(self.module(hidden))


def head_of(model: Any) -> Head:
    """Return the head of a transformers causal LM (the bare model, without PEFT's wrapper)."""
    config = model.config
    scale = getattr(config, "logit_scale", None)
    if scale is None and getattr(config, "logits_scaling", None) is not None:
        scale = 1.0 / config.logits_scaling
    return Head(
        model.get_output_embeddings(),
        1.0 if scale is None else float(scale),
        getattr(config, "final_logit_softcapping", None),
    )


def token_logprobs(
    hidden: torch.Tensor,
    head: Head,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of tokens and the entropies of the predicted distributions, both in nats.

    Args:
        hidden: (M, H) hidden states, one per predicting position.
        head: the output layer.
        rows: (N,) index of the hidden state that predicts each token.
        tokens: (N,) ids of the tokens.
        temperature: temperature by which the logits are divided.
        entropy_gradient: also compute gradients of the entropies.

    Returns:
        log-probabilities (N,) and entropies (M,), at least in float32.
    """
    if not len(
        rows
    ):  # nothing is scored: the result is empty but attached to the graph, so that a loss over it can be differentiated
        nothing = hidden.sum(-1).to(torch.promote_types(hidden.dtype, torch.float32))
        return nothing[:0], nothing
    if head.frozen and not (entropy_gradient and hidden.requires_grad):
        return _FrozenHead.apply(hidden, head, rows, tokens, temperature)
    return _by_autograd(hidden, head, rows, tokens, temperature)


def _chunks(count: int, vocabulary: int) -> list[slice]:
    size = max(16, CHUNK // vocabulary)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _by_autograd(
    hidden: torch.Tensor, head: Head, rows: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result of :func:`token_logprobs`, with gradients for all inputs. Each chunk is recomputed in the
    backward pass."""
    from torch.utils.checkpoint import checkpoint

    vocabulary = head.module.weight.shape[0] if hasattr(head.module, "weight") else head.module.out_features

    def work(states: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logp = torch.log_softmax(head.logits(states) / temperature, -1)
        return logp[at, tokens], -(logp.exp() * logp).sum(-1)

    chosen: torch.Tensor | None = None
    entropies = []
    for part in _chunks(len(hidden), vocabulary):
        inside, at = _places(rows, part)
        here, entropy = checkpoint(work, hidden[part], at, use_reentrant=False)
        chosen = here if chosen is None else torch.where(inside, here, chosen)
        entropies.append(entropy)
    assert chosen is not None
    return chosen, torch.cat(entropies)


def _places(rows: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mask (N,) of the rows that lie in a chunk, and the position (N,) of each row in the chunk.

    A row outside the chunk gets the first or last position. Both results have the shape of `rows`, so that the host
    need not wait for the GPU to count the rows in the chunk.
    """
    return (rows >= part.start) & (rows < part.stop), (rows - part.start).clamp(0, part.stop - part.start - 1)


class _Buffers:
    """Memory for the logits and probabilities of a chunk, (rows, vocabulary). All chunks share it, because new memory
    for every chunk would take as long as a pass over the logits."""

    def __init__(self, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        wide = torch.promote_types(dtype, torch.float32)
        self.raw = torch.empty(rows, vocabulary, dtype=dtype, device=device)
        self.wide = self.raw if dtype == wide else torch.empty_like(self.raw, dtype=wide)
        self.p = torch.empty_like(self.raw, dtype=wide)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: Head, rows: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = head.module.weight, head.module.bias
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight, bias, states = weight.to(dtype), None if bias is None else bias.to(dtype), hidden.to(dtype)
        needed, wide = ctx.needs_input_grad[0], torch.promote_types(dtype, torch.float32)
        lse, entropies = (torch.empty(len(hidden), dtype=wide, device=hidden.device) for _ in range(2))
        mean_row = torch.empty(len(hidden), hidden.shape[1], dtype=wide, device=hidden.device) if needed else None
        chosen = torch.empty(len(rows), dtype=wide, device=hidden.device)
        slope = torch.ones_like(chosen)
        parts = _chunks(len(hidden), len(weight))
        kept = _Buffers(parts[0].stop, len(weight), dtype, hidden.device)
        for part in parts:
            raw, p = kept.raw[: part.stop - part.start], kept.p[: part.stop - part.start]
            torch.mm(states[part], weight.t(), out=raw)
            if bias is not None:
                raw += bias
            logits = head.shape(raw if dtype == wide else kept.wide[: len(raw)].copy_(raw))
            inside, place = _places(rows, part)
            at = (place, tokens)
            bend = None
            if head.cap is not None and needed:
                bend = 1.0 - (logits / head.cap).square_()
                slope = torch.where(inside, bend[at], slope)
            if temperature != 1.0:
                logits = logits.div_(temperature)
            chosen = torch.where(inside, logits[at], chosen)
            most = logits.amax(-1, keepdim=True)
            total = torch.exp(logits.sub_(most), out=p).sum(-1, keepdim=True)
            spread = total.log()
            lse[part] = (spread + most).squeeze(-1)
            entropies[part] = (spread - logits.mul_(p).sum(-1, keepdim=True) / total).squeeze(-1)
            if mean_row is not None:
                p = p if bend is None else p.mul_(bend)
                # A narrow type holds normalised values, because sums of unnormalised ones could exceed its range.
                mean_row[part] = (p @ weight) / total if dtype == wide else torch.div(p, total, out=raw) @ weight
        ctx.mark_non_differentiable(entropies)
        ctx.save_for_backward(rows, tokens, weight, *([] if mean_row is None else [mean_row, slope]))
        ctx.factor, ctx.dtype = head.scale / temperature, hidden.dtype
        return chosen - lse[rows], entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[Any, ...]:
        rows, tokens, weight, mean_row, slope = ctx.saved_tensors
        total = torch.zeros(len(mean_row), dtype=grad.dtype, device=grad.device).index_add_(0, rows, grad)
        back = mean_row * -total.unsqueeze(-1)
        back.index_add_(0, rows, weight[tokens].to(grad.dtype) * (grad * slope).unsqueeze(-1))
        return (back * ctx.factor).to(ctx.dtype), None, None, None, None
