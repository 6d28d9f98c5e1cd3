"""Sparse mixture of experts whose load is balanced by a bias instead of a loss (Wang et al., arXiv 2408.15664)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Experts(nn.Module):
    """Layer of feed-forward experts, of which each token uses a few.

    A token uses the ``chosen`` experts with the largest sums of affinity and bias. The outputs of these experts are
    weighted by their affinities without the bias, normalised to sum to 1. With one expert, this is a plain feed-forward
    layer.

    Args:
        width: width d.
        hidden: hidden width of each expert.
        experts: number of experts E.
        chosen: number of experts per token.
        step: step size of the bias per call of :meth:`balance`.
    """

    bias: torch.Tensor
    load: torch.Tensor

    def __init__(self, width: int, hidden: int, experts: int, chosen: int, step: float = 1e-3) -> None:
        super().__init__()
        self.chosen, self.step = chosen, step
        self.router = nn.Parameter(torch.randn(experts, width) * width**-0.5)
        self.first = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.first_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.second = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)
        self.second_bias = nn.Parameter(torch.zeros(experts, width))
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (…, d) for x (…, d). In training, also add each expert's number of tokens to ``load``."""
        flat = x.reshape(-1, x.shape[-1])
        affinity = torch.sigmoid(flat @ self.router.T)
        chosen = torch.topk(affinity.detach() + self.bias, self.chosen, dim=1).indices
        weight = affinity.gather(1, chosen)
        weight = weight / weight.sum(dim=1, keepdim=True)
        out = torch.zeros_like(flat)
        for expert in range(len(self.router)):
            token, place = torch.nonzero(chosen == expert, as_tuple=True)
            hidden = functional.gelu(flat[token] @ self.first[expert] + self.first_bias[expert])
            answer = hidden @ self.second[expert] + self.second_bias[expert]
            out = out.index_add(0, token, answer * weight[token, place, None])
        if self.training:
            self.load += torch.bincount(chosen.flatten(), minlength=len(self.router))
        return out.view(x.shape)

    @torch.no_grad()
    def balance(self) -> None:
        """Move the bias by ``step`` times the relative shortfall of each expert's load since the last call.

        The bias b of an expert becomes ``b − step · (E f − 1)``, where f is the expert's share of the load. An expert
        with exactly the fair share 1 / E keeps its bias.
        """
        total = self.load.sum()
        if total > 0:
            self.bias -= self.step * (self.load / total * len(self.load) - 1)
            self.load.zero_()
