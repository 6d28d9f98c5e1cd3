"""Gaussian diffusion: schedules, the forward process, and samplers for a denoiser that predicts the clean value.

Steps are numbered 1 to S; step 0 is the clean value. ᾱ_s is the share of the clean value's variance that remains after
step s, and ᾱ_0 = 1. Sources: DDPM (Ho et al. 2020), cosine schedule (Nichol & Dhariwal 2021), DDIM (Song et al. 2021),
classifier-free guidance (Ho & Salimans 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from taiji.core.errors import ConfigError

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function from noisy values (B, d) and their steps (B,) int64 to predictions of the clean values (B, d)."""


def linear_schedule(steps: int, first: float = 1e-4, last: float = 0.02) -> torch.Tensor:
    """Return ᾱ (S + 1,) float64 for linearly increasing variances β_s (DDPM)."""
    return kept_of(torch.linspace(first, last, steps, dtype=torch.float64))


def cosine_schedule(steps: int, offset: float = 0.008, most: float = 0.999) -> torch.Tensor:
    """Return ᾱ (S + 1,) float64 that decreases as a squared cosine; no β_s exceeds ``most``."""
    at = (torch.arange(steps + 1, dtype=torch.float64) / steps + offset) / (1 + offset) * torch.pi / 2
    kept = torch.cos(at) ** 2
    return kept_of((1 - kept[1:] / kept[:-1]).clamp(max=most))


def exponential_schedule(steps: int, scale: float = 1e-2, growth: float = 4.5) -> torch.Tensor:
    """Return ᾱ (S + 1,) float64 for β_s = scale · exp(growth · s / S) (T2Diff)."""
    return kept_of(scale * torch.exp(growth * torch.arange(1, steps + 1, dtype=torch.float64) / steps))


def variance_preserving_schedule(steps: int, least: float = 0.1, most: float = 10.0) -> torch.Tensor:
    """Return ᾱ (S + 1,) float64 for β_s = 1 − exp(−least / S − x_s · (most − least) / (2 S²)), with S evenly spaced x_s
    from 1 to 2 S + 1 (FatsMB).

    This discretises the variance-preserving stochastic differential equation (Song et al. 2021), except that x runs to
    2 S + 1 instead of 2 S − 1.
    """
    x = torch.linspace(1, 2 * steps + 1, steps, dtype=torch.float64)
    return kept_of(1 - torch.exp(-least / steps - x * (most - least) / (2 * steps**2)))


def kept_of(variances: torch.Tensor) -> torch.Tensor:
    """Return ᾱ (S + 1,), the cumulative product of 1 − β for variances β (S,), with ᾱ_0 = 1.

    Raises:
        ConfigError: there is no step, or a variance is not in 0 < β < 1.
    """
    if not len(variances) or not bool(((variances > 0) & (variances < 1)).all()):
        found = f"{float(variances.min()):g} to {float(variances.max()):g}" if len(variances) else "no step"
        raise ConfigError(
            "The variances of the diffusion are invalid.",
            where="schedule",
            expected="at least one step, and variances strictly between 0 and 1",
            found=found,
        )
    return torch.cat([variances.new_ones(1), torch.cumprod(1 - variances, dim=0)])


def add_noise(kept: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return noisy values √ᾱ_s · clean + √(1 − ᾱ_s) · noise (B, d) at steps s (B,). At step 0, this is the clean
    value."""
    share = kept.to(clean)[step].unsqueeze(-1)
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def noise_in(kept: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return the noise (B, d) with which :func:`add_noise` turns the clean into the noisy values at steps (B,), each
    at least 1."""
    share = kept.to(clean)[step].unsqueeze(-1)
    return (noisy - share.sqrt() * clean) / (1 - share).sqrt()


def posterior(
    kept: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor, step: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (B, d) and the variance (B, 1) of the value at step s − 1, given the values at steps s and 0
    (DDPM, eq. 6 and 7). The steps s (B,) are at least 1."""
    now, before = (kept.to(clean)[at].unsqueeze(-1) for at in (step, step - 1))
    variance = 1 - now / before
    of_clean, of_noisy = before.sqrt() * variance, (now / before).sqrt() * (1 - before)
    return (of_clean * clean + of_noisy * noisy) / (1 - now), variance * (1 - before) / (1 - now)


def reverse_step(
    kept: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor, step: int, to: int, eta: float, noise: torch.Tensor
) -> torch.Tensor:
    """Return values (B, d) at step ``to``, given the values at step ``step`` (DDIM, eq. 12). Both steps are the same
    for the whole batch.

    With η = 0, the result is deterministic. With η = 1 and ``to = step − 1``, it is a draw from :func:`posterior`, as
    in DDPM.

    Args:
        kept: ᾱ (S + 1,) of a schedule.
        noisy: (B, d) values at step ``step``.
        clean: (B, d) predictions of the clean values.
        step, to: S ≥ step > to ≥ 0.
        eta: η in [0, 1], by which the standard deviation of the DDPM noise is multiplied.
        noise: (B, d) standard normal.
    """
    now, then = float(kept[step]), float(kept[to])
    spread = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
    towards = (noisy - now**0.5 * clean) / (1 - now) ** 0.5
    return then**0.5 * clean + max(1 - then - spread**2, 0.0) ** 0.5 * towards + spread * noise


def sampling_steps(steps: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced steps from S down to 1 (only S for a count of 1), followed by 0.

    Raises:
        ConfigError: the count is below 1 or above S.
    """
    if not 1 <= count <= steps:
        raise ConfigError(
            "A sampler cannot take this number of steps.",
            where="sampling steps",
            expected=f"1 to {steps}, the steps of the diffusion",
            found=str(count),
        )
    spread = torch.linspace(steps, 1, count, dtype=torch.float64) if count > 1 else torch.tensor([float(steps)])
    return [round(float(at)) for at in spread] + [0]


def sample(
    denoise: Denoiser,
    kept: torch.Tensor,
    start: torch.Tensor,
    steps: Sequence[int],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return a sample (B, d) of the clean value.

    Args:
        denoise: denoiser that predicts the clean value.
        kept: ᾱ (S + 1,) of a schedule.
        start: (B, d) noise at the first step.
        steps: steps in descending order, ending with 0, such as those of :func:`sampling_steps`.
        eta: η in [0, 1]; 0 is deterministic, and 1 with all S steps is DDPM.
        generator: random generator of the noise that is added at each step if η is above 0.
    """
    value = start
    for step, to in pairwise(steps):
        clean = denoise(value, torch.full((len(value),), step, dtype=torch.int64, device=value.device))
        noise = value.new_empty(value.shape).normal_(generator=generator) if eta else torch.zeros_like(value)
        value = reverse_step(kept, value, clean, step, to, eta, noise)
    return value


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, weight: float) -> torch.Tensor:
    """Return the guided prediction (1 + w) · conditional − w · unconditional. With w = 0, this is the conditional
    prediction."""
    return conditional + weight * (conditional - unconditional)
