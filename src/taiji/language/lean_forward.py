"""Fast forward pass for models with the structure of Llama or Gemma, with few, large operations. It reads prompts and
decodes on a CPU.

:func:`read_lean` converts a transformers model into a :class:`LeanModel`. The weights of query, key and value are
concatenated, weights are packed in oneDNN's layout, and activations and residuals are fused into the matrix products.
This leaves a dozen operations per layer. The lean model computes the same function as the original model;
`prefix_support` compares the two models before the first use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from taiji.language.prefix_attention import tree_attention
from taiji.language.prefix_forward import bare_model
from taiji.language.prefix_head import Head, head_of
from taiji.language.prefix_lora import plain_linear
from taiji.language.prefix_tree import Packing

ROWS = 64
"""Number of input rows for which oneDNN chooses the packed layout of the weights."""
LIMIT = 2_000_000_000
"""Largest size of a model's weights, in bytes, for which a packed copy is made."""
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
OUTPUT_NORMS = {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
"""Additional norms of a layer that also normalises the outputs of attention and MLP. In such a layer,
`post_attention_layernorm` normalises the output of the attention."""
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
QUERY_NORMS = {"q_norm", "k_norm"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}

ACTIVATIONS: dict[str, tuple[str, str]] = {"silu": ("swish", ""), "gelu": ("gelu", "tanh")}
"""Name and algorithm of the activations in oneDNN. `gelu` is the approximation by a hyperbolic tangent."""

_packed_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_pack: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Return True if this torch and processor support packed weights of a dtype (tried on a tiny input)."""
    if dtype not in (torch.float32, torch.bfloat16) or _packed_linear is None or _pack is None:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((3, 32), (16, 32), (16,)))
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        try:
            packed = _pack(weight, ROWS)
            found = _packed_linear.binary(
                x, _packed_linear(x, packed, bias, "swish", [], ""), packed, bias, "mul"
            ) + _packed_linear(x, packed, bias, "none", [], "")
        except (RuntimeError, TypeError, NotImplementedError, AttributeError):
            return False
        product = functional.linear(x.double(), weight.double(), bias.double())
    off = (found.double() - product * functional.silu(product) - product).abs() / (1 + product**2)
    return bool(off.max() < (1e-5 if dtype == torch.float32 else 0.02))


class Product:
    """Linear layer, or several layers with the same input merged into one: (n, in) -> (n, out)."""

    def __init__(self, linears: Sequence[torch.nn.Linear], dtype: torch.dtype) -> None:
        """Copy the weights, in the packed layout if it is supported.

        Args:
            linears: layers with the same input.
            dtype: dtype of the weights, the input and the output.
        """
        self._weight = torch.cat([linear.weight.detach().to(dtype) for linear in linears])
        biases = [linear.bias for linear in linears]
        self._bias = None
        if any(bias is not None for bias in biases):
            parts = [
                linear.weight.new_zeros(len(linear.weight)) if bias is None else bias.detach()
                for linear, bias in zip(linears, biases)
            ]
            self._bias = torch.cat(parts).to(dtype)
        self._packed = self._weight.device.type == "cpu" and packing_works(dtype)
        if self._packed:
            self._weight = _pack(self._weight, ROWS)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer (the product) for input rows (n, in)."""
        if self._packed:
            return _packed_linear(rows, self._weight, self._bias, "none", [], "")  # type: ignore[no-any-return]
        return functional.linear(rows, self._weight, self._bias)

    def activated(self, rows: torch.Tensor, activation: str) -> torch.Tensor:
        """Return the product after an activation, which is a key of :data:`ACTIVATIONS`."""
        if self._packed:
            name, algorithm = ACTIVATIONS[activation]
            return _packed_linear(rows, self._weight, self._bias, name, [], algorithm)  # type: ignore[no-any-return]
        product = self(rows)
        return functional.silu(product) if activation == "silu" else functional.gelu(product, approximate="tanh")

    def times(self, rows: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the product times another tensor of the same shape and dtype."""
        if self._packed:
            return _packed_linear.binary(rows, other, self._weight, self._bias, "mul")  # type: ignore[no-any-return]
        return self(rows).mul_(other)

    def onto(self, rows: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the product plus another tensor of the same shape, in that tensor's dtype."""
        if self._packed and other.dtype == rows.dtype:
            return _packed_linear.binary(rows, other, self._weight, self._bias, "add")  # type: ignore[no-any-return]
        return other + self(rows)


@dataclass(frozen=True)
class Norm:
    """Root-mean-square norm."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        exact = rows.to(self.weight.dtype)
        return functional.rms_norm(exact, self.weight.shape, self.weight, self.epsilon).to(rows.dtype)


@dataclass(frozen=True)
class LeanLayer:
    """One transformer layer.

    Attributes:
        before: norm before the attention.
        qkv: projections of query, key and value as one product.
        norms: norms of queries and keys; None if the model has none.
        out: output projection of the attention.
        between: norm before the MLP.
        gate, up, down: projections of the MLP.
        activation: activation of the MLP, a key of :data:`ACTIVATIONS`.
        after: norms of the outputs of attention and MLP, before they are added to the residual; None if the model has
            none.
        window: a token attends to this many latest tokens, including itself; None if it attends to all.
        kind: type of layer by which the model chooses rotary frequencies; None if they are the same in all layers.
    """

    before: Norm
    qkv: Product
    norms: tuple[Norm, Norm] | None
    out: Product
    between: Norm
    gate: Product
    up: Product
    down: Product
    activation: str
    after: tuple[Norm, Norm] | None
    window: int | None
    kind: str | None


@dataclass(frozen=True)
class LeanModel:
    """Causal LM with the structure of Llama or Gemma, read by :func:`read_lean`.

    Attributes:
        embedding: (V, H) token embeddings; hidden states have their dtype.
        embedding_scale: factor of the embeddings of input tokens; None for 1.
        norm, product: final norm and output projection.
        head: scale and cap of the logits.
        heads, kv_heads: numbers of query heads Hq and key heads Hk.
        size: head size d.
        scale: scale of the attention scores.
        rotary: function of a tensor (only its dtype and device matter), positions (1, n) and the kind of layer, if
            layers have one. It returns cosines and sines, each (1, n, d).
        dtype: dtype of the products.
    """

    embedding: torch.Tensor
    embedding_scale: torch.Tensor | None
    layers: list[LeanLayer]
    norm: Norm
    product: Product
    head: Head
    heads: int
    kv_heads: int
    size: int
    scale: float
    rotary: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    dtype: torch.dtype

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (n, H) before the first layer for token ids (n,)."""
        rows = self.embedding[tokens]
        return rows if self.embedding_scale is None else rows * self.embedding_scale

    def angles(self, positions: torch.Tensor) -> dict[str | None, tuple[torch.Tensor, torch.Tensor]]:
        """Return cosines and sines, each (n, 1, d), for positions (n,), by the kind of layer."""
        like, found = self.embedding.new_empty(0, dtype=self.dtype), {}
        for kind in {layer.kind for layer in self.layers}:
            cos, sin = self.rotary(like, positions[None], *([] if kind is None else [kind]))
            found[kind] = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        return found

    def project(
        self, layer: LeanLayer, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rotated queries (n, Hq, d), rotated keys (n, Hk, d) and values (n, Hk, d) of hidden states (n, H)."""
        both = self.heads + self.kv_heads
        states = layer.qkv(layer.before(hidden).to(self.dtype)).view(len(hidden), both + self.kv_heads, self.size)
        turned, value = states[:, :both], states[:, both:]
        if layer.norms is not None:
            pieces = zip(layer.norms, (turned[:, : self.heads], turned[:, self.heads :]))
            turned = torch.cat([norm(piece) for norm, piece in pieces], 1)
        turned = rotated(turned, cos, sin)
        return turned[:, : self.heads], turned[:, self.heads :], value

    def finish(self, layer: LeanLayer, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (n, H) after a layer.

        Args:
            layer: the layer.
            hidden: (n, H) hidden states before the layer.
            mixed: (n, Hq * d) attention output.
        """
        if layer.after is None:
            hidden = layer.out.onto(mixed, hidden)
            return layer.down.onto(self._gated(layer, hidden), hidden)
        after_attention, after_mlp = layer.after
        hidden = hidden + after_attention(layer.out(mixed).to(hidden.dtype))
        return hidden + after_mlp(layer.down(self._gated(layer, hidden)).to(hidden.dtype))

    def _gated(self, layer: LeanLayer, hidden: torch.Tensor) -> torch.Tensor:
        """Return the input (n, F) of the MLP's last projection for hidden states (n, H)."""
        rows = layer.between(hidden).to(self.dtype)
        return layer.up.times(rows, layer.gate.activated(rows, layer.activation))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (n, V), at least in float32, from hidden states (n, H) after the last layer."""
        return self.head.shape(self.product(self.norm(hidden).to(self.dtype)))

    def read(
        self, tree: Packing, places: torch.Tensor, keep: Callable[[int, torch.Tensor, torch.Tensor], None]
    ) -> torch.Tensor:
        """Run packed tokens through the model.

        Args:
            tree: packing of T tokens.
            places: (n,) packed positions whose hidden states are returned.
            keep: function called for every layer with its index, keys and values, each (T, Hk, d).

        Returns:
            (n, H) hidden states after the last layer.
        """
        device = self.embedding.device
        hidden = self.embedded(tree.tokens.to(device))
        angles = self.angles(tree.positions.to(device))
        for number, layer in enumerate(self.layers):
            query, key, value = self.project(layer, hidden, *angles[layer.kind])
            keep(number, key, value)
            query, key, value = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))
            mixed = tree_attention(query, key, value, tree, self.scale, window=layer.window)[0].flatten(1)
            if number == len(self.layers) - 1:  # after the last layer's attention, only these hidden states are needed
                hidden, mixed = hidden[places], mixed[places]
            hidden = self.finish(layer, hidden, mixed)
        return hidden


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embedding to (n, heads, d): ``x cos + (-x₂, x₁) sin``, where x₁ and x₂ are the halves of x.

    ``cos`` and ``sin`` are (n, 1, d), with two equal halves.
    """
    half = states.shape[-1] // 2
    out = states * cos
    out[..., :half].addcmul_(states[..., half:], sin[..., half:], value=-1)
    out[..., half:].addcmul_(states[..., :half], sin[..., :half])
    return out


def read_lean(model: Any) -> LeanModel | None:
    """Convert a causal LM with exactly the structure of Llama or Gemma (optionally with biases, norms of queries and
    keys, and windows).

    A merged or disabled LoRA layer is read as its base layer. Under autocast, the products have the dtype of autocast.

    Returns:
        The lean model, or None if the structure differs, an adapter is not merged, a module has hooks, or the weights
        are too large to copy.
    """
    bare = bare_model(model)
    base, config, head = bare.base_model, bare.config, head_of(bare)
    device = bare.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else bare.dtype
    weights = sum(p.numel() for p in bare.parameters())
    names = {name for name, _ in base.named_children()}
    if names != {"embed_tokens", "layers", "norm", "rotary_emb"} or weights * dtype.itemsize > LIMIT or _hooked(base):
        return None
    embedding, product, last = base.embed_tokens, plain_linear(head.module), _norm(base.norm, bare.dtype)
    scale = getattr(embedding, "embed_scale", None)
    layers = [layer for one in base.layers if (layer := _layer(one, config, dtype, bare.dtype)) is not None]
    attention = base.layers[0].self_attn
    size = getattr(attention, "head_dim", 0)
    frequencies = {len(buffer) for buffer in base.rotary_emb.buffers()}
    if (
        len(layers) < len(base.layers)
        or last is None
        or product is None
        or not isinstance(embedding, torch.nn.Embedding)
        or (type(embedding) is not torch.nn.Embedding and not isinstance(scale, torch.Tensor))
        or frequencies != {size / 2}
    ):
        return None
    return LeanModel(
        embedding.weight.detach(),
        None if scale is None else scale.to(embedding.weight.dtype),
        layers,
        last,
        Product([product], dtype),
        head,
        config.num_attention_heads,
        config.num_key_value_heads,
        size,
        float(attention.scaling),
        base.rotary_emb,
        dtype,
    )


def _hooked(module: Any) -> bool:
    """Return True if submodules have forward hooks, which the lean forward pass would not call."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def _layer(layer: Any, config: Any, dtype: torch.dtype, stored: torch.dtype) -> LeanLayer | None:
    parts = dict(layer.named_children())
    if set(parts) not in (LAYER, LAYER | OUTPUT_NORMS):
        return None
    attention, mlp = (dict(parts[name].named_children()) for name in ("self_attn", "mlp"))
    if set(attention) not in (ATTENTION, ATTENTION | QUERY_NORMS) or set(mlp) != MLP:
        return None
    linears = {name: plain_linear(part) for name, part in {**attention, **mlp}.items() if name.endswith("_proj")}
    norms = {name: _norm(part, stored) for name, part in {**parts, **attention}.items() if name.endswith("norm")}
    act = type(mlp["act_fn"]).__name__.lower()
    activation = "silu" if "silu" in act else "gelu" if "gelutanh" in act else None
    capped = getattr(parts["self_attn"], "attn_logit_softcapping", None) is not None
    if None in [*linears.values(), *norms.values()] or activation is None or capped:
        return None

    def product(*wanted: str) -> Product:
        return Product([linear for name in wanted if (linear := linears[f"{name}_proj"]) is not None], dtype)

    def several(first: str, second: str) -> tuple[Norm, Norm] | None:
        a, b = norms.get(first), norms.get(second)
        return None if a is None or b is None else (a, b)

    outputs = set(parts) >= OUTPUT_NORMS
    before = norms["input_layernorm"]
    between = norms["pre_feedforward_layernorm" if outputs else "post_attention_layernorm"]
    assert before is not None and between is not None
    return LeanLayer(
        before,
        product("q", "k", "v"),
        several("q_norm", "k_norm"),
        product("o"),
        between,
        product("gate"),
        product("up"),
        product("down"),
        activation,
        several("post_attention_layernorm", "post_feedforward_layernorm") if outputs else None,
        window_of(parts["self_attn"], config),
        parts["self_attn"].layer_type if frequencies_by_kind(config) else None,
    )


def window_of(attention: Any, config: Any) -> int | None:
    """Return the number of latest tokens to which a token attends in an attention layer; None for all of them."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window  # type: ignore[no-any-return]
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


def frequencies_by_kind(config: Any) -> bool:
    """Return True if a model has different rotary frequencies for different types of layers."""
    return any(isinstance(value, dict) for value in (getattr(config, "rope_parameters", None) or {}).values())


def _norm(module: Any, dtype: torch.dtype) -> Norm | None:
    """Convert a root-mean-square norm. Llama's norm multiplies by the weight, Gemma's by 1 + weight in float32.

    Return None for any other module.
    """
    if [name for name, _ in module.named_parameters()] != ["weight"] or module.weight.dtype != dtype:
        return None
    weight = module.weight.detach()
    if hasattr(module, "variance_epsilon"):
        return Norm(weight, float(module.variance_epsilon))
    if hasattr(module, "eps"):
        return Norm(1.0 + weight.to(torch.promote_types(dtype, torch.float32)), float(module.eps))
    return None
