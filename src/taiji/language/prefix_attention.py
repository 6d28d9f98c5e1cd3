"""Attention over a packed tree: every token attends to the past of its own segment and to all ancestor segments.

`tree_attention` is one function with three backends:

- *blocks* (CPU): each segment attends causally to itself, and all descendants of a segment attend to the whole segment.
  Neither of these pieces of the attention needs a mask, so no masked scores are computed. The pieces are merged by
  their log-sum-exp. The backward pass runs the flash-attention backward pass of each piece with the output O and the
  log-sum-exp L merged over all pieces. This is exact: with the scores S of a piece, `P = exp(S - L)` and
  `D = rowsum(dO * O)`, the gradient `dS = P * (dP - D)` equals that of the whole softmax (as in ring attention, Liu
  et al. 2023, arXiv:2310.01889).
- *flex* (CUDA, with at least `MASK_BLOCK` tokens, or in float32 with more than `DENSE` tokens): FlexAttention with the
  tree as its block mask.
- *masked*: scaled-dot-product attention with the dense mask, the plain reference on any device.

After `install`, a transformers model uses tree attention in every forward call with `taiji_tree=`; other calls do not
change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from taiji.core.errors import ResourceError
from taiji.language.prefix_products import Factors, products_pay
from taiji.language.prefix_tree import Level, Packing
from taiji.nn.devices import on_device

Array = NDArray[Any]

NAME = "taiji_prefix"
"""Name under which the attention is registered with transformers."""
Backend = Literal["blocks", "flex", "masked"]

PACKED_MASK = (1, 1, 1, 1)
"""Shape of the placeholder mask of a packed forward pass. Because a mask is given, transformers does not build its own.
A real mask for several queries never has this shape."""
MASK_BLOCK = 128
"""Number of queries and of keys per block of FlexAttention's mask."""
DENSE = 16384
"""Largest number of tokens for which float32 uses the dense mask on a GPU; with more, the mask would exceed 256 MB."""
SHORT = 128
"""Length of a segment, in tokens, up to which bfloat16 tensors are converted to float32 for the backward kernel of the
CPU. In bfloat16, the kernel would be two to six times slower (docs/performance.md)."""

_flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_flash_backward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def install(model: Any) -> None:
    """Make the attention layers of a transformers model follow the tree. Calls without a tree still use `sdpa`.

    The change is permanent, because gradient checkpointing reruns the layers in the backward pass.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attention_interface)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.config._attn_implementation = NAME


def installed(model: Any) -> bool:
    """Return True if `install` was called for this model."""
    return bool(model.config._attn_implementation == NAME)


def check_seen(model: Any, seen: set[int]) -> None:
    """Raise unless all attention layers have followed the tree.

    In a layer that ignores the tree, tokens of different sequences attend to each other.

    Args:
        model: transformers model.
        seen: indices of the layers that have followed the tree.

    Raises:
        ResourceError: a layer is missing from ``seen``.
    """
    layers = model.config.num_hidden_layers
    if len(seen) != layers:
        raise ResourceError(
            "Not all attention layers follow the packed tree.",
            where=type(model).__name__,
            expected=f"{layers} layers",
            found=str(len(seen)),
            fix="load the model with attn_implementation='sdpa', or set share_prefixes=False",
        )


def _attention_interface(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **kwargs: Any
) -> tuple[Any, None]:
    tree, steps = kwargs.pop("taiji_tree", None), kwargs.pop("taiji_decoding", None)
    if tree is None and steps is None:
        if attention_mask is not None and attention_mask.shape == PACKED_MASK and query.shape[2] > 1:
            raise ResourceError(
                "An attention layer received packed sequences without the tree that separates them.",
                where=type(module).__name__,
                expected="a model that passes the keyword arguments of its forward on to its attention layers",
            )
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    seen = kwargs.pop("taiji_seen", None)
    if seen is not None:
        seen.add(module.layer_idx)
    if steps is not None:
        return steps.attend(module.layer_idx, query, key, value, scaling), None
    keep = kwargs.get("taiji_keep")
    if keep is not None:
        keep.keep(module.layer_idx, key, value)
    return tree_attention(query, key, value, tree, scaling), None


def tree_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tree: Packing,
    scale: float | None = None,
    backend: Backend | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Return the attention of packed tokens along the tree.

    Args:
        query: (1, Hq, T, d).
        key, value: (1, Hk, T, d), where Hq is a multiple of Hk (grouped queries).
        tree: the packing of the T tokens.
        scale: scale of the scores; by default 1 / sqrt(d).
        backend: name of a backend; by default chosen by :func:`best_backend`.
        window: a token attends to this many latest tokens of its sequence, including itself; None for all. Only the
            masked backend supports a window that is shorter than the longest sequence.

    Returns:
        (1, T, Hq, d). It can be differentiated once with respect to query, key and value.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if window is not None and window > int(tree.positions.max()):
        window = None
    backend = "masked" if window is not None else backend or best_backend(query, value)
    if backend == "blocks":
        return _Blocks.apply(query, key, value, tree, scale)
    if backend == "flex":
        from torch.nn.attention.flex_attention import flex_attention

        attend = _compiled_flex() if query.is_cuda else flex_attention
        out = attend(query, key, value, block_mask=_block_mask(tree, query.device), scale=scale, enable_gqa=True)
        return out.transpose(1, 2).contiguous()
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) if groups > 1 else t for t in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=on_device(tree.mask_within(window).numpy(), query.device), scale=scale
    )
    return out.transpose(1, 2).contiguous()


def best_backend(query: torch.Tensor, value: torch.Tensor) -> Backend:
    """Return the name of the fastest backend that supports these tensors."""
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and blocks_work():
        return "blocks"
    # Below one block of queries, FlexAttention uses its decoding kernel, which does not support gradients with our
    # mask. In float32, FlexAttention is up to eleven times slower than the masked backend.
    worth = (
        query.is_cuda and query.shape[-2] >= MASK_BLOCK and (query.dtype != torch.float32 or query.shape[-2] > DENSE)
    )
    return "flex" if worth and _flex_works(query.shape[-1]) else "masked"


@cache
def blocks_work() -> bool:
    """Return True if this torch has the CPU kernels with grouped queries that *blocks* needs (tried on a tiny
    input)."""
    if _flash is None or _flash_backward is None:
        return False
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 4, 8, generator=generator) for h in (4, 2, 2))
    try:
        out, lse = _flash(q, k, v, 0.0, True, scale=0.5)
        grads = _flash_backward(out, q, k, v, out, lse, 0.0, True, scale=0.5)
    except (RuntimeError, TypeError):
        return False
    with torch.autocast("cpu", enabled=False):  # the first call may be inside the caller's autocast context
        expected = torch.nn.functional.scaled_dot_product_attention(
            q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), is_causal=True, scale=0.5
        )
    return torch.allclose(out, expected, atol=1e-5) and grads[1].shape == k.shape and lse.shape == (1, 4, 4)


VARIANTS = 256
"""Number of compiled forms of FlexAttention (head counts, dtypes, with and without gradients, kinds of masks) that one
process may need.

Beyond its limit (8 by default), PyTorch warns and continues without compilation, which is nine times slower and keeps
all scores in memory.
"""


@cache
def _compiled_flex() -> Any:
    from torch._dynamo import config
    from torch._functorch import config as gradients
    from torch.nn.attention.flex_attention import flex_attention

    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    # Each reward needs a backward pass through the same graph. With donated buffers (the default), the second pass
    # would raise an error, because the first one has reused the memory of saved tensors.
    gradients.donated_buffer = False
    return torch.compile(flex_attention, dynamic=True)


def _flex_works(head: int) -> bool:
    """Return True if FlexAttention's CUDA kernel works, which needs Triton and a head size that is a power of two and
    at least 16."""
    import importlib.util

    return head >= 16 and head & (head - 1) == 0 and importlib.util.find_spec("triton") is not None


def _block_mask(tree: Packing, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    made = tree.__dict__.setdefault("_block_masks", {})
    if device not in made:
        partly, wholly = (block[None, None] for block in mask_blocks(tree))
        counts = [on_device(kind.sum(-1).astype(np.int32), device) for kind in (partly, wholly)]
        places = [
            on_device(np.argsort(~kind, axis=-1, kind="stable").astype(np.int32), device) for kind in (partly, wholly)
        ]
        made[device] = BlockMask.from_kv_blocks(
            counts[0],
            places[0],
            counts[1],
            places[1],
            BLOCK_SIZE=MASK_BLOCK,
            mask_mod=tree.may_attend(device),
            seq_lengths=(len(tree), len(tree)),
        )
    return made[device]


def mask_blocks(tree: Packing) -> tuple[Array, Array]:
    """Return two bool arrays (B, B) over blocks of `MASK_BLOCK` queries (rows) and keys (columns).

    The first is True where some queries of a block attend to some keys of the other block, the second where all queries
    attend to all keys (and the first is then False). They are computed from the ends of the subtrees, without a full
    mask and without synchronisation with the device.
    """
    count = -(-len(tree) // MASK_BLOCK)
    ends = np.pad(tree.subtree_end.numpy(), (0, count * MASK_BLOCK - len(tree))).reshape(count, MASK_BLOCK)
    first = np.arange(count) * MASK_BLOCK
    own, earlier = np.eye(count, dtype=bool), np.tri(count, k=-1, dtype=bool)
    some = own | (earlier & (ends.max(axis=1)[None, :] > first[:, None]))
    inside = (first + MASK_BLOCK <= len(tree))[:, None]
    wholly = earlier & inside & (ends.min(axis=1)[None, :] >= first[:, None] + MASK_BLOCK)
    return some & ~wholly, wholly


def take(tensor: torch.Tensor, level: Level) -> torch.Tensor:
    """Return the rows of a level (B, H, L, d) from (1, H, T, d), as a view if they are contiguous."""
    if level.span is not None:
        start, stop = level.span
        batch, length = level.rows.shape
        heads, size = tensor.shape[1], tensor.shape[3]
        return tensor[0, :, start:stop].unflatten(1, (batch, length)).transpose(0, 1).view(batch, heads, length, size)
    return tensor[0][:, level.rows].transpose(0, 1)


def place(level: Level, rows: torch.Tensor) -> tuple[slice | torch.Tensor, torch.Tensor]:
    """Return where to write the rows (B, L, ...) of a level in a (T, ...) tensor, and the rows without repetitions."""
    if level.span is not None:
        return slice(*level.span), rows.flatten(0, 1)
    if level.valid is None:
        return level.rows.flatten(), rows.flatten(0, 1)
    return level.rows[level.valid], rows[level.valid]


def attend_within(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, levels: Sequence[Level], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the causal attention of each segment to itself: output (T, Hq, d) and log-sum-exp (T, Hq).

    The log-sum-exp is at least in float32.
    """
    out = query.new_empty(query.shape[2], query.shape[1], query.shape[3])
    lse = out.new_empty(out.shape[:2], dtype=torch.promote_types(query.dtype, torch.float32))
    for level in levels:
        piece, sums = _flash(*(take(t, level) for t in (query, key, value)), 0.0, True, scale=scale)
        for target, rows in ((out, piece), (lse, sums)):
            at, found = place(level, rows.transpose(1, 2))
            target[at] = found
    return out, lse


def attend_above(
    out: torch.Tensor,
    lse: torch.Tensor,
    below: slice,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
) -> None:
    """Add the attention of the tokens ``below`` to all keys (1, Hk, S, d) of a segment above them.

    ``out`` (T, Hq, d) and ``lse`` (T, Hq) are updated in place.
    """
    piece, sums = _flash(query[:, :, below], key, value, 0.0, False, scale=scale)
    piece, sums = piece[0].transpose(0, 1), sums[0].transpose(0, 1)
    total = torch.logaddexp(lse[below], sums)
    share = (sums - total).exp_().unsqueeze(-1)
    part = out[below]
    if out.dtype == lse.dtype:
        part.lerp_(piece, share)
    else:
        part.copy_(part.float().lerp_(piece.float(), share))
    lse[below] = total


@dataclass(frozen=True)
class Attended:
    """Tensors for the backward pass of *blocks*, each (1, H, T, d); d is 1 for the log-sum-exp. ``scale`` scales the
    scores."""

    grad: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    out: torch.Tensor
    lse: torch.Tensor
    scale: float

    @classmethod
    def of(cls, grad: torch.Tensor, saved: Sequence[torch.Tensor], scale: float) -> Attended:
        """Arrange a gradient (1, T, Hq, d) and the saved tensors: query, key, value, output (T, Hq, d), log-sum-exp (T,
        Hq)."""
        query, key, value, out, lse = saved
        return cls(
            grad.transpose(1, 2),
            query,
            key,
            value,
            out.unsqueeze(0).transpose(1, 2),
            lse.unsqueeze(0).unsqueeze(-1).transpose(1, 2),
            scale,
        )

    @cached_property
    def factors(self) -> Factors | None:
        """Factors of the products that replace the flash kernel; None where the kernel is used."""
        if self.query.dtype != torch.bfloat16 or not products_pay():
            return None
        return Factors.of(self.grad, self.query, self.key, self.value, self.out, self.lse, self.scale)

    def rows(self, level: Level) -> torch.Tensor:
        """Return the gradient of the output of a level's rows, (B, Hq, L, d); zero at repeated rows."""
        return _only_valid(take(self.grad, level), level)

    def within(self, levels: Sequence[Level]) -> list[torch.Tensor]:
        """Return the gradients of query, key and value, each (T, H, d), for the attention within each segment."""
        # The backward pass continues with the projections, which need the layout (T, H, d).
        dtype = self.query.dtype if self.factors is None else torch.float32
        grads = [
            t.new_empty(t.shape[2], t.shape[1], t.shape[3], dtype=dtype) for t in (self.query, self.key, self.value)
        ]
        for level in levels:
            for target, piece in zip(grads, self._level(level)):
                at, found = place(level, piece.transpose(1, 2).to(dtype))
                target[at] = found
        return grads

    def _level(self, level: Level) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.factors is not None:
            rows_of = partial(take, level=level)
            factors = self.factors.taken(rows_of, rows_of)
            return replace(factors, grad=_only_valid(factors.grad, level)).gradients(causal=True)
        rows = self.rows(level)
        taken = [take(t, level) for t in (self.query, self.key, self.value, self.out, self.lse)]
        if self.query.dtype == torch.bfloat16 and level.rows.shape[1] <= SHORT:
            rows, *taken = (t.float() for t in (rows, *taken))
        return flash_backward(rows, *taken, causal=True, scale=self.scale)

    def above(self, below: slice, own: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients of the queries ``below``, and of the keys and values ``own`` to which all of them
        attend."""
        if self.factors is not None:
            return self.factors.taken(lambda t: t[:, :, below], lambda t: t[:, :, own]).gradients(causal=False)
        asking = [t[:, :, below] for t in (self.grad, self.query, self.out, self.lse)]
        return flash_backward(
            asking[0], asking[1], self.key[:, :, own], self.value[:, :, own], *asking[2:],
            causal=False, scale=self.scale,
        )  # fmt: skip


def _only_valid(rows: torch.Tensor, level: Level) -> torch.Tensor:
    return rows if level.valid is None else rows * level.valid[:, None, :, None]


def flash_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of query, key and value from one piece of the attention, each (B, H, L, d).

    ``out`` (B, Hq, L, d) and ``lse`` (B, Hq, L, 1) are the output and log-sum-exp merged over all pieces.
    """
    repeats = _repeats(len(key), key.shape[1], query.shape[1])
    if repeats > 1:
        key, value = (t.repeat_interleave(repeats, 1) for t in (key, value))
    pieces: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _flash_backward(
        grad, query, key, value, out, lse.squeeze(-1).contiguous(), 0.0, causal, scale=scale
    )
    if repeats == 1:
        return pieces
    of_query, *of_both = pieces
    of_key, of_value = (t.unflatten(1, (-1, repeats)).sum(2) for t in of_both)
    return of_query, of_key, of_value


def _repeats(batch: int, key_heads: int, query_heads: int) -> int:
    """Return how often each key head is repeated for the backward kernel, whose threads take whole key heads.

    Three heads on two threads leave one thread idle for half of the time. With one key head per query head, the
    work is divided more evenly.
    """
    threads, repeats = torch.get_num_threads(), query_heads // key_heads

    def rounds(heads: int) -> float:
        return math.ceil(batch * heads / threads) / heads

    return repeats if rounds(key_heads) > 1.1 * rounds(query_heads) else 1


class _Blocks(torch.autograd.Function):
    """The *blocks* backend. It saves its inputs, the output (T, Hq, d) and, at least in float32, the log-sum-exp (T, Hq)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tree: Packing, scale: float
    ) -> torch.Tensor:
        out, lse = attend_within(query, key, value, tree.levels, scale)
        for s in tree.crossings:
            own = slice(s.start, s.stop)
            attend_above(out, lse, slice(s.stop, s.end), query, key[:, :, own], value[:, :, own], scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.tree, ctx.scale = tree, scale
        return out.unsqueeze(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        seen = Attended.of(grad, ctx.saved_tensors, ctx.scale)
        grads = seen.within(ctx.tree.levels)
        for s in ctx.tree.crossings:
            own, below = slice(s.start, s.stop), slice(s.stop, s.end)
            for target, piece, at in zip(grads, seen.above(below, own), (below, own, own)):
                target[at] += piece[0].transpose(0, 1)
        return (*(g.to(seen.query.dtype).transpose(0, 1).unsqueeze(0) for g in grads), None, None)
