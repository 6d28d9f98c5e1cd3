"""Faster computation of PEFT's LoRA layers, with the same results up to rounding.

`merged_adapters` lets generation run with `W + s B A` (one product per layer instead of three). `fuse_adapters`
replaces the forward pass of PEFT's LoRA layers. The new forward pass adds the low-rank product in place,
`y = x Wᵀ; y += s (x Aᵀ) Bᵀ`, and its backward pass also accumulates in place. PEFT's own forward pass allocates and
keeps, per layer, four more tensors of the size of the output.

With `gradients_by_row`, one backward pass computes many gradients of A and B. They are sums over the same tokens with
different token weights (:class:`RowSums`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch


def _lora_layers(model: Any) -> list[Any]:
    """Return PEFT's LoRA layers that wrap plain linear layers."""
    if "peft" not in sys.modules:  # without PEFT no such layer can exist, and its import takes a second
        return []
    from peft.tuners.lora.layer import Linear

    return [m for m in model.modules() if isinstance(m, Linear) and type(m.base_layer) is torch.nn.Linear]


def _plain_adapter(layer: Any) -> str | None:
    """Return the name of a layer's active adapter if it is ordinary LoRA; otherwise None.

    An ordinary layer has a single active, unmerged adapter without active dropout, bias or variant.
    """
    active = [a for a in layer.active_adapters if a in layer.lora_A]
    if len(active) != 1 or layer.merged or layer.disable_adapters or layer.fan_in_fan_out:
        return None
    name = active[0]
    dropout = layer.lora_dropout[name]
    if name in layer.lora_variant or layer.lora_bias.get(name, False):
        return None
    if not isinstance(dropout, torch.nn.Identity) and dropout.p > 0 and dropout.training:
        return None
    return str(name)


@contextmanager
def merged_adapters(model: Any) -> Iterator[None]:
    """Run with the active LoRA adapters merged into the weights.

    The merged weights are held in separate tensors, so that the base weights are restored bit for bit. This takes as
    much memory as the weights of the adapted layers. Two kinds of layers keep their own forward pass: layers that are
    not ordinary LoRA, and layers that share their weight with another layer (such as a head tied to the embedding).
    """
    swapped = []
    owners = Counter(
        id(m.weight) for m in model.modules() if isinstance(getattr(m, "weight", None), torch.nn.Parameter)
    )
    try:
        with torch.no_grad():
            for layer in _lora_layers(model):
                name = _plain_adapter(layer)
                weight = layer.base_layer.weight
                if (
                    name is None or owners[id(weight)] > 2
                ):  # an unshared weight has two owners: the linear layer and PEFT's wrapper around it
                    continue
                a, b = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
                merged = torch.addmm(weight.data.float(), b, a, alpha=layer.scaling[name]).to(weight.dtype)
                swapped.append((layer, weight, weight.data))
                weight.data = merged
                layer.merged_adapters.append(name)
        yield
    finally:
        for layer, weight, data in swapped:
            weight.data = data
            layer.merged_adapters.pop()


def plain_linear(module: Any) -> torch.nn.Linear | None:
    """Return the linear layer to which a module is currently equivalent; None if there is none.

    This is the module itself, or the base layer of a merged or disabled LoRA layer.
    """
    if _lora_layers(module)[:1] == [module]:
        active = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
        if set(active) != set(module.merged_adapters):
            return None
        module = module.base_layer
    return module if type(module) is torch.nn.Linear and "forward" not in module.__dict__ else None


class RowSums:
    """D gradients of each LoRA factor from one backward pass: sums over the tokens with D different token weights.

    Attributes:
        by_token: (D, T) weights of the tokens in each of the D sums; set before the backward pass.
        sums: gradients (D, *shape) by the `id` of the parameter.
    """

    def __init__(self) -> None:
        self.by_token: torch.Tensor = torch.empty(0, 0)
        self.sums: dict[int, torch.Tensor] = {}

    def add(self, key: int, narrow: torch.Tensor, wide: torch.Tensor, turned: bool) -> None:
        """Add sum_t weight[d, t] narrow[t] wide[t]' to the D gradients of a parameter.

        The narrow factor is weighted in float32, and the D products are computed as one. In half precision, the result
        is therefore rounded at the same points as in a separate pass.

        Args:
            key: `id` of the parameter.
            narrow: (T, r) factor whose width is the rank of the adapter.
            wide: (T, n) factor as wide as the layer's input or output.
            turned: True if the parameter has shape (n, r) instead of (r, n).
        """
        weights = self.by_token.t().unsqueeze(2)
        weighed = (narrow.to(torch.promote_types(narrow.dtype, weights.dtype)).unsqueeze(1) * weights).flatten(1)
        product = (weighed.to(wide.dtype).t() @ wide).unflatten(0, (len(self.by_token), -1))
        if turned:
            product = product.transpose(1, 2)
        product = product.to(weights.dtype)
        self.sums[key] = self.sums[key] + product if key in self.sums else product


@contextmanager
def gradients_by_row(layers: Sequence[Any], sums: RowSums) -> Iterator[None]:
    """Collect the gradients of A and B of these layers in ``sums``, for forward passes inside this context.

    Autograd itself gets no gradients for these parameters.
    """
    for layer in layers:
        layer.taiji_row_sums = sums
    try:
        yield
    finally:
        for layer in layers:
            del layer.taiji_row_sums


def sole_adapters(model: Any) -> list[Any]:
    """Return the model's fused, ordinary LoRA layers.

    The list is empty if parameters other than the factors of these layers are trained.
    """
    found, owned = [], set[int]()
    for layer in _lora_layers(model):
        name = _plain_adapter(layer)
        if name is not None and "forward" in layer.__dict__ and not _trained(layer.base_layer):
            found.append(layer)
            owned |= {id(layer.lora_A[name].weight), id(layer.lora_B[name].weight)}
    return found if all(id(p) in owned for p in model.parameters() if p.requires_grad) else []


def _trained(linear: Any) -> bool:
    return bool(linear.weight.requires_grad or (linear.bias is not None and linear.bias.requires_grad))


def fuse_adapters(model: Any) -> int:
    """Switch all LoRA layers of the model permanently to the in-place forward pass, and return their number.

    While a layer is not ordinary LoRA (because of dropout, a variant, or several, merged or disabled adapters), or its
    base layer is trained, it uses PEFT's forward pass.
    """
    layers = _lora_layers(model)
    for layer in layers:
        if "forward" not in layer.__dict__:
            layer.forward = MethodType(_fused_forward, layer)
    return len(layers)


def _fused_forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    name = None if args or kwargs else _plain_adapter(layer)
    base = layer.base_layer
    if name is None or _trained(base):
        return type(layer).forward(layer, x, *args, **kwargs)
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
    sums = layer.__dict__.get("taiji_row_sums")
    return _LoraLinear.apply(x, base.weight, base.bias, a, b, layer.scaling[name], dtype, sums)


class _LoraLinear(torch.autograd.Function):
    """`x Wᵀ + bias + s (x Aᵀ) Bᵀ` with frozen W and bias.

    Products have the given `dtype`; the gradients of A and B have the dtype of A and B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
        sums: RowSums | None,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        low = rows @ a.to(dtype).t()
        out = torch.nn.functional.linear(rows, weight, bias)
        out.addmm_(low, b.to(dtype).t(), alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scale, ctx.shape, ctx.given, ctx.dtype = scale, x.shape, x.dtype, dtype
        ctx.sums, ctx.keys = sums, (id(a), id(b))
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        rows, weight, a, b, low = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        low_grad = (grad @ b.to(ctx.dtype)).mul_(ctx.scale)
        back = None
        if ctx.needs_input_grad[0]:
            back = torch.mm(grad, weight).addmm_(low_grad, a.to(ctx.dtype)).view(ctx.shape).to(ctx.given)
        if ctx.sums is not None:
            ctx.sums.add(ctx.keys[0], low_grad, rows, False)
            ctx.sums.add(ctx.keys[1], low * ctx.scale, grad, True)
            return back, *[None] * 7
        to_a = (low_grad.t() @ rows).to(a.dtype) if ctx.needs_input_grad[3] else None
        to_b = (grad.t() @ low).mul_(ctx.scale).to(b.dtype) if ctx.needs_input_grad[4] else None
        return back, None, None, to_a, to_b, None, None, None
