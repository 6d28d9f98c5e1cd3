"""Network of a behaviour diffusion. Gradients are stopped so that each training stage changes only its own parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.nn.behaviour_denoiser import BehaviourDenoiser
from taiji.nn.behaviour_encoder import BehaviourEncoder
from taiji.nn.devices import on_device
from taiji.nn.diffusion import add_noise, guided, sample, sampling_steps, variance_preserving_schedule
from taiji.nn.lookup import look_up

Array = NDArray[Any]


class BehaviourNetwork(nn.Module):
    """Item vectors, encoder of histories, denoiser of the diffusion, and head that maps latents to queries.

    Args:
        items: number of items N, numbered from 1; 0 is padding, N + 1 is the mask.
        behaviours: number of behaviours n, numbered from 1; 0 is padding, n + 1 is the mask or an unknown behaviour.
    """

    start: torch.Tensor
    kept: torch.Tensor

    def __init__(self, items: int, behaviours: int, settings: BehaviourDiffusionSettings) -> None:
        super().__init__()
        width, released = settings.width, settings.as_released
        self.mask, self.masked_behaviour = items + 1, behaviours + 1
        self.guidance, self.released = settings.guidance, released
        self.sampler = sampling_steps(settings.steps, settings.sampler_steps)
        self.table = nn.Parameter(torch.randn(items + 2, width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(items))
        self.encoder = BehaviourEncoder(
            behaviours, width, settings.heads, settings.layers, settings.dropout, settings.behaviours, "rotary" in released
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.denoiser = BehaviourDenoiser(
            width, behaviours, settings.denoiser_blocks, settings.steps, settings.shared_experts, settings.own_experts
        )
        # All requests share one fixed draw of noise, so that a request always gets the same result.
        self.register_buffer("start", torch.randn(width))
        # The sampler reads single values of the schedule. Reading them from a GPU would make the host wait, so this
        # copy stays on the host.
        self.host_kept = variance_preserving_schedule(settings.steps)
        self.register_buffer("kept", self.host_kept.clone(), persistent=False)

    def encode(self, items: torch.Tensor, behaviours: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the latent vectors (M, d) at flat positions (M,) of histories (B, L), which are newest first."""
        x = look_up(self.table, items) * self.table.shape[1] ** 0.5
        return self.encoder(x, behaviours, items > 0).flatten(0, 1)[places]  # type: ignore[no-any-return]

    def masking(self, behaviours: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return a copy of the behaviours (B, L) with the mask at flat positions (M,)."""
        return behaviours.flatten().index_fill(0, places, self.masked_behaviour).view_as(behaviours)

    def behaviour_at(self, behaviours: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the behaviours (M,) at flat positions (M,); 0 where unknown."""
        found = behaviours.flatten()[places]
        return found * (found != self.masked_behaviour)

    def transfer_loss(
        self,
        items: torch.Tensor,
        behaviours: torch.Tensor,
        places: torch.Tensor,
        told: torch.Tensor,
        step: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Return the smooth L1 error (M,) of the denoiser's prediction of each behaviour-specific latent. Only the
        denoiser receives gradients.

        Args:
            items, behaviours: (B, L) histories with masked items.
            places: (M,) flat positions of the masked items.
            told: (M,) bool, True where the denoiser sees the behaviour.
            step: (M,) diffusion steps, from 1.
            noise: (M, d) standard normal.
        """
        with torch.no_grad():
            specific = self.encode(items, behaviours, places)
            agnostic = self.encode(items, self.masking(behaviours, places), places)
        behaviour = self.behaviour_at(behaviours, places) * told
        found = self.denoiser(add_noise(self.kept, specific, noise, step), step, agnostic, behaviour)
        return nn.functional.smooth_l1_loss(found, specific, reduction="none").mean(dim=1)

    def sampled(
        self, items: torch.Tensor, behaviours: torch.Tensor, places: torch.Tensor, start: torch.Tensor
    ) -> torch.Tensor:
        """Return the latents (M, d) that the diffusion samples for flat positions (M,), starting from noise (M, d). No
        gradient is computed."""
        with torch.no_grad():
            shown = behaviours if "masking" in self.released else self.masking(behaviours, places)
            agnostic, behaviour = self.encode(items, shown, places), self.behaviour_at(behaviours, places)
            if "guidance" in self.released and self.guidance:
                return self._guided_as_released(agnostic, behaviour, start)
            return sample(
                lambda noisy, step: self.predicted(noisy, step, agnostic, behaviour),
                self.host_kept,
                start,
                self.sampler,
            )

    def predicted(
        self, noisy: torch.Tensor, step: torch.Tensor, agnostic: torch.Tensor, behaviour: torch.Tensor
    ) -> torch.Tensor:
        """Return the denoiser's predictions (M, d) of the clean latents, given behaviours (M,). Guidance is applied if
        its weight is above 0."""
        if not self.guidance:
            return self.denoiser(noisy, step, agnostic, behaviour)  # type: ignore[no-any-return]
        both = torch.cat([behaviour, torch.zeros_like(behaviour)])
        found = self.denoiser(noisy.repeat(2, 1), step.repeat(2), agnostic.repeat(2, 1), both)
        conditional, unconditional = found.chunk(2)
        return guided(conditional, unconditional, self.guidance)

    def _guided_as_released(self, agnostic: torch.Tensor, behaviour: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        def drawn(begin: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            return sample(
                lambda noisy, step: self.denoiser(noisy, step, agnostic, told), self.host_kept, begin, self.sampler
            )

        conditional = drawn(start, behaviour)
        return (1 + self.guidance) * conditional + self.guidance * drawn(conditional, torch.zeros_like(behaviour))

    def asked(self, latent: torch.Tensor) -> torch.Tensor:
        """Return query vectors (M, d + 1) from latents (M, d). The last entry of a query is 1, which multiplies the
        items' bias."""
        return torch.cat([self.head(latent), latent.new_ones(len(latent), 1)], dim=1)

    def queries(self, items: Array, behaviours: Array, target: int, sampled: bool) -> Array:
        """Return queries (B, d + 1) from histories (B, L), newest first. A history without known items gives zeros.

        Args:
            items: (B, L) items of the histories, numbered from 1; 0 for padding.
            behaviours: (B, L) behaviours of the items, numbered from 1; 0 for padding.
            target: behaviour of the next item.
            sampled: True to use a sample of the diffusion, False to use the encoder's latent.
        """
        rows = np.flatnonzero(items.any(axis=1))
        out = np.zeros((len(items), self.table.shape[1] + 1), dtype=np.float32)
        if not len(rows):
            return out
        length = int(np.flatnonzero(items.any(axis=0)).max()) + 1
        question = np.ones((len(rows), 1), np.int64)
        shown = np.hstack([question * self.mask, items[rows, :length]])
        told = np.hstack([question * target, behaviours[rows, :length]])
        place = np.arange(len(rows)) * (length + 1)
        x, b, at = (on_device(part, self.start.device) for part in (shown, told, place))
        self.eval()
        with torch.no_grad():
            latent = self.sampled(x, b, at, self.start.expand(len(rows), -1)) if sampled else self.encode(x, b, at)
            out[rows] = self.asked(latent).cpu().numpy()
        return out

    def items(self, fixed: bool = False) -> torch.Tensor:
        """Return the item vectors with their bias as last entry, (N, d + 1). With ``fixed``, gradients reach the bias
        but not the vectors."""
        table = self.table.detach() if fixed else self.table
        return torch.cat([table[1:-1], self.bias[:, None]], dim=1)
