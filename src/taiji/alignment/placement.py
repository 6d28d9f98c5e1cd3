"""Placement of the trainable parameters and their gradients: whole on each process, or sharded by FSDP2.

Under FSDP2 a parameter is a ``DTensor`` of which each process holds one part. The module of the parameter gathers the
parts for each forward and backward pass, and a backward pass leaves the local part of the gradient, averaged over
processes, in ``parameter.grad``. This has three consequences: a gradient consists of local parts, an inner product is
the sum of the local inner products over processes, and all processes must run the same number of forward and backward
passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from taiji.core.errors import ConfigError


def _one_process(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Placement:
    """Layout of parameters and gradients over processes.

    Args:
        processes: number of processes.
        mean: function that averages a tensor over processes.
        sharded: True if each process has a part of the averaged gradients; False if it has the whole gradients of its
            own rows.
        copies: number of processes with the same part (more than one if the shards are replicated).
        modules: modules that gather their parameters; empty unless the model is sharded.
    """

    processes: int = 1
    mean: Callable[[Tensor], Tensor] = _one_process
    sharded: bool = False
    copies: int = 1
    modules: tuple[FSDPModule, ...] = ()

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        parameters: Sequence[Tensor],
        processes: int,
        mean: Callable[[Tensor], Tensor],
    ) -> Placement:
        """Determine the placement of a model's trainable parameters.

        Raises:
            ConfigError: the placements differ, or do not support inner products.
        """
        modules = tuple(module for module in model.modules() if isinstance(module, FSDPModule))
        parts = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
        if not parts:
            return cls(processes, mean, modules=modules)
        kinds = {(part.device_mesh, tuple(type(kind) for kind in part.placements)) for part in parts}
        mesh, placements = next(iter(kinds))
        if not modules or len(parts) < len(parameters) or len(kinds) > 1 or not {*placements} <= {Shard, Replicate}:
            raise ConfigError(
                "The trainable parameters do not all have the same sharding, so the rewards' gradients cannot be compared.",
                expected="all parameters unsharded, or all sharded by FSDP2 over one mesh",
                found=f"{len(parameters) - len(parts)} unsharded, {len(parts)} sharded as {sorted(str(kind) for kind in kinds)}",
                fix="use a reward rule such as popo-light, or shard the model with FSDP2 only",
            )
        apart = math.prod(size for size, kind in zip(mesh.shape, placements) if kind is Shard)
        return cls(processes, mean, True, processes // apart, modules)

    @property
    def together(self) -> bool:
        """Return True if forward and backward passes wait for the other processes."""
        return bool(self.modules)

    def total(self, counts: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``counts`` averaged over processes, and local inner products summed over the parts, in one
        collective."""
        both = self.mean(torch.cat([counts, products])) if self.processes > 1 else torch.cat([counts, products])
        return both[: len(counts)], both[len(counts) :] * (self.processes / self.copies)

    def gathered_anew(self) -> None:
        """Make the modules discard their gathered parameters, after the local parts have been changed in place."""
        for module in self.modules:
            module.reshard()

    def reduce_in_each_backward(self) -> None:
        """Make FSDP2 reduce gradients in every backward pass, including those before the last micro-batch.

        Otherwise each process would keep unsharded gradients until the last micro-batch.
        """
        for module in self.modules:
            module.set_requires_gradient_sync(True, recurse=False)
            module.set_requires_all_reduce(True, recurse=False)


WHOLE = Placement()
"""Placement on a single process."""


def trainable(model: torch.nn.Module) -> list[Tensor]:
    """Return the trainable parameters in the optimiser's sharded form. FSDP2 modules that are gathered are resharded
    first."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, in the same memory."""
    with torch.no_grad():
        part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
    return part


def placed_like(parameter: Tensor, part: Tensor) -> Tensor:
    """Return a tensor with the placement of ``parameter``, whose part on this process is ``part``."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def vector_jacobian_product(
    outputs: Sequence[Tensor], values: Sequence[Tensor], parameters: Sequence[Tensor], keep: bool
) -> list[Tensor | None]:
    """Return the gradient of sum <output, value> with respect to this process's part of each parameter; None where the
    graph does not reach it.

    ``keep`` retains the graph. FSDP2 does not support ``torch.autograd.grad``, so a backward pass fills ``grad``, whose
    previous contents are then restored.
    """
    if not isinstance(parameters[0], DTensor):
        return list(torch.autograd.grad(outputs, list(parameters), values, retain_graph=keep, allow_unused=True))
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    torch.autograd.backward(outputs, values, retain_graph=keep)
    found = [None if parameter.grad is None else local(parameter.grad) for parameter in parameters]
    for parameter, gradient in zip(parameters, before):
        parameter.grad = gradient
    return found
