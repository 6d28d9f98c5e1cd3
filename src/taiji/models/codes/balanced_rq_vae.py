"""CoBa RQ-VAE: an RQ-VAE whose codebook entries repel each other, and whose assignments favour rarely used entries
(S²GR, arXiv 2601.18664).

The method is reconstructed from a summary of the paper, and the summary does not give the formula of the adjusted
distance. The paper also smooths the item vectors over co-occurring items before they are encoded. That step is in
:mod:`.smoothing`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.models.codes.rq_vae import RQVAE, RQVAESettings


class BalancedRQVAESettings(RQVAESettings):
    """Settings of :class:`BalancedRQVAE`."""

    balance: float = Field(default=0.3, ge=0, lt=1)
    """Largest relative change β of a squared distance. The distance to an entry is multiplied by 1 + β if the entry is
    used at least twice as often as under uniform use, and by 1 − β if it is unused."""
    uniformity: float = Field(default=0.1, ge=0)
    """Weight of the loss by which the entries of a level repel each other."""
    margin: float = Field(default=1.0, gt=0)
    """Distance in the latent space beyond which two entries no longer repel each other."""


class BalancedRQVAE(RQVAE):
    """Variant of :class:`RQVAE` with distances that depend on usage, and with entries that repel each other.

    The squared distance to each entry is multiplied by a factor, which is frozen together with the codebooks. Because a
    factor leaves a distance of 0 unchanged, a vector equal to an entry is always assigned to this entry.
    """

    Settings: ClassVar[type[Base]] = BalancedRQVAESettings
    settings: BalancedRQVAESettings

    def repulsion(self, codebooks: torch.Tensor) -> torch.Tensor:
        """Return ``uniformity`` times the mean squared shortfall from the margin, over all pairs of entries of the same
        level."""
        return self.settings.uniformity * shortfall(codebooks, self.settings.margin)

    def distance_factors(self, use: torch.Tensor) -> torch.Tensor:
        """Return 1 + balance · (min(use / even use, 2) − 1), (L, K), where even use is 1 / K."""
        return 1.0 + self.settings.balance * ((use * use.shape[1]).clamp(0.0, 2.0) - 1.0)


def shortfall(codebooks: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the mean of ``max(0, margin − distance)²`` over all pairs of entries of the same level of codebooks (L, K,
    w)."""
    size = codebooks.shape[1]
    if size < 2:
        return codebooks.new_zeros(())
    first, second = torch.triu_indices(size, size, 1, device=codebooks.device)
    norms, products = codebooks.square().sum(dim=2), codebooks @ codebooks.transpose(1, 2)
    squares = (norms[:, first] + norms[:, second] - 2 * products[:, first, second]).clamp(min=0.0)
    return (margin - (squares + 1e-12).sqrt()).clamp(min=0.0).square().mean()
