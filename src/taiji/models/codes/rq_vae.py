"""RQ-VAE: an autoencoder whose latent vector is quantised residual by residual (Lee et al., CVPR 2022; TIGER, NeurIPS
2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn

from taiji.core.component import pick_device
from taiji.core.settings import Settings as Base
from taiji.models.codes.coder import Coder, CoderSettings
from taiji.models.codes.kmeans import k_means, means_of, nearest
from taiji.models.codes.residual_kmeans import residual_codes

Array = NDArray[Any]
DECAY = 0.99
"""Decay of the moving average of a code's use."""
SETTLED = 0.8
"""Share of the training steps after which unused entries of the codebooks are no longer restarted."""


class RQVAESettings(CoderSettings):
    """Settings of :class:`RQVAE`."""

    latent: PositiveInt = 32
    """Width of the latent vector that is quantised."""
    hidden: tuple[PositiveInt, ...] = (128,)
    """Widths of the hidden layers of the encoder; the decoder has the same layers in reverse order."""
    steps: PositiveInt = 2000
    """Number of training steps."""
    batch: PositiveInt = 1024
    """Number of vectors per step."""
    rate: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam."""
    commitment: float = Field(default=0.25, ge=0)
    """Weight of the commitment loss, which pulls latent vectors towards their codebook entries."""
    restart: PositiveInt = 50
    """Number of steps after which an unused codebook entry is moved to a random latent residual."""


class RQVAE(Coder):
    """Coder that consists of an encoder network, codebooks for the residuals of the latent vectors, and a decoder
    network.

    After training, each codebook entry is set to the mean of the latent residuals assigned to it. Thus, the mean
    squared latent residual of the training vectors does not increase from level to level. The mean squared error of the
    decoded vectors may still increase, because the decoder is trained only on complete codes.
    """

    Settings: ClassVar[type[Base]] = RQVAESettings
    settings: RQVAESettings
    mean: Array
    scale: Array
    codebooks: Array
    factors: Array

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return (self.codebooks.shape[1],) * self.codebooks.shape[0]

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return len(self.mean)

    # Methods that variants override.

    def repulsion(self, codebooks: torch.Tensor) -> torch.Tensor:
        """Return an additional loss of the codebooks (L, K, w). In this class it is 0."""
        return codebooks.new_zeros(())

    def distance_factors(self, use: torch.Tensor) -> torch.Tensor:
        """Return factors (L, K) of the squared distances to the entries, given each entry's share ``use`` (L, K) of the
        assignments. In this class they are 1."""
        return torch.ones_like(use)

    # Training.

    def learn(self, vectors: Array, seed: int, device: str) -> None:
        """Train the networks, then set each codebook entry to the mean of the residuals assigned to it."""
        self.mean = vectors.mean(axis=0).astype(np.float32)
        rows = vectors - self.mean
        self.scale = np.asarray([np.sqrt((rows**2).mean()) or 1.0], np.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._train(rows / self.scale, np.random.default_rng(seed), pick_device(device))
        residual = self.latents(vectors)
        for level, book in enumerate(self.codebooks):
            settled = means_of(residual, nearest(residual, book, self.factors[level]), book)
            self.codebooks[level] = settled
            residual = residual - settled[nearest(residual, settled, self.factors[level])]

    def _train(self, rows: Array, random: np.random.Generator, device: str) -> None:
        s = self.settings
        data = torch.as_tensor(rows, dtype=torch.float32, device=device)
        widths = (data.shape[1], *s.hidden, s.latent)
        encoder, decoder = perceptron(widths).to(device), perceptron(widths[::-1]).to(device)
        with torch.no_grad():
            sample = random.permutation(len(data))[: max(s.batch, 8 * s.size)]
            start = encoder(data[torch.as_tensor(sample, device=device)]).cpu().numpy()
        books = nn.Parameter(
            torch.as_tensor(_start(start, s.levels, s.size, int(random.integers(2**31))), device=device)
        )
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), books], lr=s.rate)
        use = torch.full((s.levels, s.size), 1.0 / s.size, device=device)
        count = torch.zeros_like(use)
        for step in range(1, s.steps + 1):
            batch = data[torch.as_tensor(random.integers(0, len(data), min(s.batch, len(data))), device=device)]
            latent = encoder(batch)
            coded, pull, codes, left = quantised(latent, books, self.distance_factors(use), s.commitment)
            loss = (decoder(straight_through(latent, coded)) - batch).square().sum(dim=1).mean()
            loss = loss + pull + self.repulsion(books)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            hits = torch.stack([torch.bincount(column, minlength=s.size) for column in codes.T]).to(use.dtype)
            use = DECAY * use + (1 - DECAY) * hits / len(batch)
            count += hits
            if step % s.restart == 0:
                if step < SETTLED * s.steps:
                    restart_dead(books, count, left, random)
                count.zero_()
        self.codebooks = books.detach().cpu().numpy()
        self.factors = self.distance_factors(use).cpu().numpy()
        self._layers = {
            name: [(np.asarray(w), np.asarray(b)) for w, b in _dense(network)]
            for name, network in (("encoder", encoder), ("decoder", decoder))
        }

    # Encoding and decoding.

    def latents(self, vectors: Array) -> Array:
        """Return the latent vectors (N, w) float64 of vectors (N, d)."""
        return _run(self._layers["encoder"], (vectors - self.mean) / self.scale)

    def assign(self, vectors: Array) -> Array:
        """Return the codes (N, L) of the vectors' latent vectors."""
        return residual_codes(self.latents(vectors), self.codebooks, self.factors)[0]

    def reconstruct(self, codes: Array) -> Array:
        """Return the decoder's output for the sum of the codebook entries that the codes denote."""
        total = np.zeros((len(codes), self.codebooks.shape[2]))
        for level in range(codes.shape[1]):
            total += self.codebooks[level, codes[:, level]]
        return _run(self._layers["decoder"], total) * self.scale + self.mean

    def weights(self) -> dict[str, Array]:
        """Return mean, scale, codebooks (L, K, w), distance factors (L, K) and the layers of both networks."""
        out = {"mean": self.mean, "scale": self.scale, "codebooks": self.codebooks, "factors": self.factors}
        for name, parts in self._layers.items():
            for place, (weight, bias) in enumerate(parts):
                out |= {f"{name}.{place}.weight": weight, f"{name}.{place}.bias": bias}
        return out

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the coder from :meth:`weights`."""
        self.mean, self.scale = weights["mean"], weights["scale"]
        self.codebooks, self.factors = weights["codebooks"], weights["factors"]
        self._layers = {
            name: [
                (weights[f"{name}.{place}.weight"], weights[f"{name}.{place}.bias"])
                for place in range(len(self.settings.hidden) + 1)
            ]
            for name in ("encoder", "decoder")
        }


def quantised(
    latent: torch.Tensor, books: torch.Tensor, factors: torch.Tensor, commitment: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantise latent vectors residual by residual.

    Args:
        latent: (B, w) latent vectors.
        books: (L, K, w) codebooks.
        factors: (L, K) factors of the squared distances.
        commitment: weight β of the commitment loss.

    Returns:
        The sum of the chosen entries (B, w), the loss, the codes (B, L), and the residual before each level (L, B, w),
        without a gradient. The loss is ‖sg(r) − e‖² + β ‖r − sg(e)‖², summed over levels and averaged over rows, where
        r is a residual, e its entry, and sg stops the gradient.
    """
    residual, total, pull = latent, torch.zeros_like(latent), latent.new_zeros(())
    codes, before = [], []
    for book, factor in zip(books, factors):
        before.append(residual.detach())
        with torch.no_grad():
            distances = (
                before[-1].square().sum(1, keepdim=True) - 2 * before[-1] @ book.T + book.square().sum(1)
            ) * factor
            codes.append(distances.argmin(dim=1))
        entry = book[codes[-1]]
        pull = pull + (before[-1] - entry).square().sum(1).mean()
        pull = pull + commitment * (residual - entry.detach()).square().sum(1).mean()
        total = total + entry
        residual = residual - entry.detach()
    return total, pull, torch.stack(codes, dim=1), torch.stack(before)


def straight_through(values: torch.Tensor, coded: torch.Tensor) -> torch.Tensor:
    """Return ``coded`` with the gradient of ``values`` (straight-through estimator)."""
    return values + (coded - values).detach()


def restart_dead(books: torch.Tensor, count: torch.Tensor, before: torch.Tensor, random: np.random.Generator) -> None:
    """Move each entry of ``books`` (L, K, w) whose number of uses ``count`` (L, K) is 0 to a random residual of its
    level, chosen from ``before`` (L, B, w)."""
    with torch.no_grad():
        for book, hits, rows in zip(books, count, before):
            dead = torch.nonzero(hits == 0).flatten()
            chosen = torch.as_tensor(random.integers(0, len(rows), len(dead)), device=books.device)
            book[dead] = rows[chosen]


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of the given widths with ReLU between them."""
    parts: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        parts += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _start(rows: Array, levels: int, size: int, seed: int) -> Array:
    books = []
    for level in range(levels):
        books.append(k_means(rows, size, 10, seed + level))
        rows = rows - books[-1][nearest(rows, books[-1])]
    return np.stack(books)


def _dense(network: nn.Sequential) -> list[tuple[Array, Array]]:
    found = [part for part in network if isinstance(part, nn.Linear)]
    return [(part.weight.detach().cpu().numpy(), part.bias.detach().cpu().numpy()) for part in found]


def _run(parts: list[tuple[Array, Array]], rows: Array) -> Array:
    """Return the output (N, w) float64 of linear layers with ReLU between them."""
    for place, (weight, bias) in enumerate(parts):
        rows = (np.maximum(rows, 0.0) if place else rows) @ weight.T.astype(np.float64) + bias
    return rows
