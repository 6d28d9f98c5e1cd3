"""Two towers in which the user side first samples the user's next item (T2Diff, arXiv 2502.20687).

Given the history, a diffusion generates the drift, which is the embedding of the next item minus the embedding of the
last item, divided by √2. A transformer reads the sampled next item together with the last interactions. Its output
weights the whole history (mixed attention). The item side does not depend on the user, so its index remains valid. No
gradient flows from the diffusion into the embeddings, or from the user tower into the diffusion.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt, model_validator
from torch import nn

from taiji.models.retrieval.two_towers import ItemTower, TwoTowers, TwoTowersSettings, tower
from taiji.nn.denoiser import Denoiser
from taiji.nn.devices import on_device
from taiji.nn.diffusion import add_noise, exponential_schedule, sample, sampling_steps
from taiji.nn.sequence_transformer import Block

Array = NDArray[np.int64]


class IntentDiffusionSettings(TwoTowersSettings):
    """Settings of :class:`IntentDiffusion`."""

    intent: Literal["sampled", "noised_target", "none"] = "sampled"
    """Next item that the user tower reads in training. `sampled` draws it with the sampler, as at retrieval.
    `noised_target` adds noise to the true next item and denoises it, as in the released code; this leaks the target to
    the tower. `none` uses the last item instead, without diffusion, and also at retrieval."""
    session: PositiveInt = 10
    """Number of most recent interactions that the transformer reads."""
    heads: PositiveInt = 2
    """Number of attention heads of the transformer."""
    denoiser_blocks: PositiveInt = 2
    """Number of blocks of the network that predicts the drift."""
    steps: PositiveInt = 50
    """Number of diffusion steps."""
    sampler_steps: PositiveInt = 4
    """Number of diffusion steps that the sampler uses."""

    @model_validator(mode="after")
    def _fitting(self) -> IntentDiffusionSettings:
        if self.sampler_steps > self.steps:
            raise ValueError(
                f"sampler_steps must be at most steps, found sampler_steps = {self.sampler_steps} and steps = {self.steps}"
            )
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, found width = {self.width} and heads = {self.heads}")
        return self


class IntentNetwork(ItemTower):
    """Network that consists of the item tower, the diffusion of the drift, and the user tower."""

    start: torch.Tensor
    kept: torch.Tensor

    def __init__(self, items: int, categories: list[int], settings: IntentDiffusionSettings) -> None:
        super().__init__(items, categories, settings)
        width = settings.width
        self.session, self.sampler = settings.session, sampling_steps(settings.steps, settings.sampler_steps)
        self.denoiser = Denoiser(width, 2 * width, settings.hidden, settings.denoiser_blocks, settings.steps)
        self.position = nn.Parameter(torch.randn(settings.session + 1, width) * 0.02)
        self.block = Block(width, settings.heads, settings.hidden, settings.dropout)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Sequential(nn.Linear(4 * width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, 1))
        self.user_tower = tower(2 * width, settings)
        # All requests share one fixed draw of noise, so that a request always gets the same result.
        self.register_buffer("start", torch.randn(width))
        self.register_buffer("kept", exponential_schedule(settings.steps), persistent=False)

    def sequence(self, items: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (…, d) that the user side reads for items (…,), numbered from 1. The embeddings are
        scaled to mean square 1, and are 0 at padding."""
        x = nn.functional.normalize(self.inputs(items, categories), dim=-1) * self.items.shape[1] ** 0.5
        return x * (items > 0).unsqueeze(-1)

    def condition(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the condition (B, 2 d) of the diffusion, without a gradient: the embedding of the last item, followed
        by a recency-weighted mean of the history.

        Args:
            x: (B, L, d) embeddings of the history, newest first.
            known: (B, L) bool, False at padding.
        """
        x = x.detach()
        weight = known / (1 + torch.arange(known.shape[1], device=x.device)).to(x).sqrt()
        mean = (x * weight.unsqueeze(-1)).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp_min(1e-9)
        return torch.cat([newest(x, known), mean], dim=1)

    def sampled(self, condition: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Return embeddings (B, d) of next items. The sampler draws them, starting from noise (B, d). No gradient is
        computed."""
        with torch.no_grad():
            drift = sample(lambda noisy, step: self.denoiser(noisy, step, condition), self.kept, start, self.sampler)
            return moved(condition, drift)

    def denoised(
        self, condition: torch.Tensor, target: torch.Tensor, step: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add noise to the true drift, and predict the drift from the noisy value.

        Args:
            condition: (B, 2 d) conditions from :meth:`condition`.
            target: (B, d) embeddings of the next items.
            step: (B,) diffusion steps, from 1.
            noise: (B, d) standard normal.

        Returns:
            The Euclidean lengths of the errors (B,), with a gradient only for the denoiser, and the predicted
            embeddings (B, d) of the next items, without a gradient.
        """
        drift = (target.detach() - condition[:, : target.shape[1]]) / 2**0.5
        predicted = self.denoiser(add_noise(self.kept, drift, noise, step), step, condition)
        return (predicted - drift).norm(dim=1), moved(condition, predicted.detach())

    def user(self, x: torch.Tensor, known: torch.Tensor, intent: torch.Tensor) -> torch.Tensor:
        """Return unit user vectors (B, d).

        Args:
            x: (B, L, d) embeddings of the history, newest first.
            known: (B, L) bool, False at padding.
            intent: (B, d) embeddings of the sampled next items.
        """
        last = known[:, : self.session]
        there = torch.cat([torch.ones_like(known[:, :1]), last], dim=1)
        session = torch.cat([intent.unsqueeze(1), x[:, : self.session]], dim=1) + self.position[: there.shape[1]]
        states = self.norm(self.block(session, there[:, None, None, :])) * there.unsqueeze(-1)
        short = states.sum(dim=1) / there.sum(dim=1, keepdim=True)
        beside = short.unsqueeze(1).expand_as(x)
        logits = self.attention(torch.cat([x, x - beside, x * beside, beside], dim=-1)).squeeze(-1)
        weights = torch.softmax(logits.masked_fill(~known, -1e9), dim=1) * known
        long = (weights.unsqueeze(-1) * x).sum(dim=1)
        both = torch.cat([long, short], dim=1)
        return nn.functional.normalize(long + short + self.user_tower(both), dim=-1)


def newest(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the first entry (B, d) of each row of ``x`` (B, L, d), newest first, at which the mask ``known`` (B, L) is
    True; zeros if there is none."""
    first = known.to(torch.int64).argmax(dim=1)
    return x[torch.arange(len(x), device=x.device), first] * known.any(dim=1, keepdim=True)


def moved(condition: torch.Tensor, drift: torch.Tensor) -> torch.Tensor:
    """Return the embedding (B, d) of the last item, which is the first half of the condition (B, 2 d), plus √2 times
    the drift (B, d)."""
    return condition[:, : drift.shape[1]] + 2**0.5 * drift


class IntentDiffusion(TwoTowers):
    """Two towers with a diffusion of the next item on the user side. No item is retrieved for a user without a
    history."""

    Settings = IntentDiffusionSettings
    settings: IntentDiffusionSettings
    network: IntentNetwork

    def _network(self, categories: list[int]) -> IntentNetwork:
        return IntentNetwork(len(self.places), categories, self.settings)

    def _user(self, newest_first: Array) -> torch.Tensor:
        x, known = self._sequence(newest_first)
        condition = self.network.condition(x, known)
        if self.settings.intent == "none":
            intent = condition[:, : x.shape[2]]
        else:
            intent = self.network.sampled(condition, self.network.start.expand(len(x), -1))
        return self.network.user(x, known, intent) * known.any(dim=1, keepdim=True)

    def _loss(self, past: Array, items: torch.Tensor, log_chance: torch.Tensor) -> torch.Tensor:
        network, settings = self.network, self.settings
        if settings.intent == "none":
            return super()._loss(past, items, log_chance)
        x, known = self._sequence(past)
        condition, there = network.condition(x, known), known.any(dim=1, keepdim=True)
        target = network.sequence(items, self._padded[items])
        step = torch.randint(1, settings.steps + 1, (len(x),), device=x.device)
        errors, intent = network.denoised(condition, target, step, torch.randn_like(target))
        if settings.intent == "sampled":
            intent = network.sampled(condition, torch.randn_like(target))
        user = network.user(x, known, intent) * there
        # The two terms share no parameters, so with Adam a relative weight would have no effect.
        of_drift = (errors * there.squeeze(1)).sum() / there.sum().clamp_min(1)
        return self._softmax(user, items, log_chance) + of_drift

    def _sequence(self, newest_first: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings (B, L, d) and a mask of known items (B, L) for histories (B, L), in which −1 stands for
        padding and unknown items."""
        items = on_device(newest_first + 1, self.device)
        return self.network.sequence(items, self._padded[items]), items > 0
