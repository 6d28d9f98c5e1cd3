"""An oracle denoiser gives back what was diffused; the forward process and both samplers have their moments; diffusers
agrees."""

import pytest
import torch

from taiji.core.errors import ConfigError
from taiji.nn.diffusion import (
    add_noise,
    cosine_schedule,
    exponential_schedule,
    guided,
    kept_of,
    linear_schedule,
    noise_in,
    posterior,
    reverse_step,
    sample,
    sampling_steps,
    variance_preserving_schedule,
)

SCHEDULES = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "exponential": exponential_schedule,
    "preserving": variance_preserving_schedule,
}
STEPS = 50


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SCHEDULES)
def kept(request):
    return SCHEDULES[request.param](STEPS)


def test_schedules_fall_from_one(kept):
    assert kept.shape == (STEPS + 1,) and kept.dtype == torch.float64
    assert kept[0] == 1 and (kept.diff() < 0).all() and (kept > 0).all()


def test_known_values_of_the_schedules():
    assert float(variance_preserving_schedule(200)[-1]) == pytest.approx(
        float(torch.exp(torch.tensor(-5.07475))), rel=1e-6
    )
    assert float(exponential_schedule(50)[-1]) == pytest.approx(2e-7, rel=0.5)  # 0.99 and 0.84 after 1 and 10 steps
    assert float(exponential_schedule(50)[1]) == pytest.approx(0.99, abs=0.002)
    assert float(exponential_schedule(50)[10]) == pytest.approx(0.84, abs=0.01)
    cosine = cosine_schedule(4)
    wanted = torch.cos((torch.arange(5) / 4 + 0.008) / 1.008 * torch.pi / 2).double() ** 2
    torch.testing.assert_close(cosine[:4], (wanted / wanted[0])[:4], atol=1e-6, rtol=0)
    torch.testing.assert_close(1 - cosine[4] / cosine[3], torch.tensor(0.999, dtype=torch.float64))
    torch.testing.assert_close(
        1 - linear_schedule(3)[1:] / linear_schedule(3)[:-1], torch.tensor([1e-4, 0.01005, 0.02]).double()
    )


@pytest.mark.parametrize("bad", [[], [0.0], [0.5, 1.0]], ids=["none", "zero", "one"])
def test_a_variance_that_is_none_is_said(bad):
    with pytest.raises(ConfigError):
        kept_of(torch.tensor(bad))


@pytest.mark.parametrize("count", [1, 2, 7, STEPS])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0], ids=str)
def test_an_oracle_denoiser_gives_back_the_target(kept, count, eta):
    target = normal(3, 4)
    found = sample(lambda noisy, step: target, kept, normal(3, 4, seed=1), sampling_steps(STEPS, count), eta)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-12)


def test_the_forward_process_is_undone(kept):
    clean, noise, step = normal(STEPS, 4), normal(STEPS, 4, seed=1), torch.arange(1, STEPS + 1)
    noisy = add_noise(kept, clean, noise, step)
    torch.testing.assert_close(noise_in(kept, noisy, clean, step), noise, rtol=0, atol=1e-10)
    torch.testing.assert_close(add_noise(kept, clean, noise, torch.zeros(STEPS, dtype=torch.int64)), clean)


def test_step_by_step_is_at_once(kept):
    """√(1−β)-steps with their own noise have the closed form's mean and variance: the coefficients agree exactly."""
    mean, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for now, before in zip(kept[1:], kept):
        mean, variance = mean * (now / before).sqrt(), variance * (now / before) + 1 - now / before
    torch.testing.assert_close(mean, kept[-1].sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(variance, 1 - kept[-1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0], ids=str)
@pytest.mark.parametrize(("step", "to"), [(40, 39), (40, 7), (9, 0)])
def test_a_reverse_step_keeps_the_moments_of_the_forward_process(kept, step, to, eta):
    """From z_s = √ᾱ_s x + √(1−ᾱ_s) ε it goes to mean √ᾱ_t x and variance 1 − ᾱ_t, whatever η is: linear in (x, ε,
    noise)."""
    at = torch.tensor([step])
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    of_clean = reverse_step(kept, add_noise(kept, one, zero, at), one, step, to, eta, zero)
    of_noise = reverse_step(kept, add_noise(kept, zero, one, at), zero, step, to, eta, zero)
    of_fresh = reverse_step(kept, zero, zero, step, to, eta, one)
    torch.testing.assert_close(of_clean.squeeze(), kept[to].sqrt(), rtol=0, atol=1e-12)
    torch.testing.assert_close((of_noise**2 + of_fresh**2).squeeze(), 1 - kept[to], rtol=0, atol=1e-12)
    assert eta > 0 or not of_fresh.any()


def test_eta_one_is_the_step_of_a_ddpm(kept):
    noisy, clean, noise = normal(5, 3), normal(5, 3, seed=1), normal(5, 3, seed=2)
    for step in (1, 2, 25, STEPS):
        mean, variance = posterior(kept, noisy, clean, torch.full((5,), step))
        found = reverse_step(kept, noisy, clean, step, step - 1, 1.0, noise)
        torch.testing.assert_close(found, mean + variance.sqrt() * noise, rtol=0, atol=1e-12)


def test_a_sample_of_normal_values_is_normal():
    """The best denoiser of N(m, v) is linear; a DDPM with it ends at that distribution, computed without drawing."""
    kept, centre, spread = cosine_schedule(400), 1.5, 0.5
    mean, variance = 0.0, 1.0
    for step in range(400, 0, -1):
        share, at = kept[step], torch.tensor([step])
        slope = float(share.sqrt() * spread / (share * spread + 1 - share))
        gain = posterior(kept, torch.ones(1, 1).double(), torch.full((1, 1), slope).double(), at)
        offset = centre - slope * float(share.sqrt()) * centre
        shift = posterior(kept, torch.zeros(1, 1).double(), torch.full((1, 1), offset).double(), at)[0]
        mean, variance = mean * float(gain[0]) + float(shift), variance * float(gain[0]) ** 2 + float(gain[1])
    assert mean == pytest.approx(centre, abs=0.01) and variance == pytest.approx(spread, abs=0.01)


def test_the_generator_decides_what_is_drawn():
    kept, steps = linear_schedule(10), sampling_steps(10, 10)
    runs = [
        sample(lambda z, step: 0.5 * z, kept, normal(2, 3), steps, 1.0, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


def test_steps_of_a_sampler():
    assert sampling_steps(50, 1) == [50, 0] and sampling_steps(4, 4) == [4, 3, 2, 1, 0]
    assert sampling_steps(50, 3) == [50, 26, 1, 0]
    for count in (0, 51):
        with pytest.raises(ConfigError):
            sampling_steps(50, count)


def test_guidance():
    with_it, without = normal(3, 2), normal(3, 2, seed=1)
    assert (guided(with_it, without, 0.0) == with_it).all()
    torch.testing.assert_close(guided(with_it, without, 0.7), 1.7 * with_it - 0.7 * without, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(with_it, with_it, 3.0), with_it)


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_diffusers_agrees(ours, theirs):
    diffusers = pytest.importorskip("diffusers")
    kept = SCHEDULES[ours](STEPS)
    options = {
        "num_train_timesteps": STEPS, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": theirs,
        "prediction_type": "sample", "clip_sample": False,
    }  # fmt: skip
    ddpm, ddim = diffusers.DDPMScheduler(**options), diffusers.DDIMScheduler(**options)
    torch.testing.assert_close(ddpm.alphas_cumprod.double(), kept[1:], rtol=1e-5, atol=1e-8)
    clean, noise = normal(1, 6), normal(1, 6, seed=1)
    ddim.set_timesteps(STEPS)
    ddpm.set_timesteps(STEPS)
    for step in (2, 17, STEPS):  # theirs are numbered from 0
        noisy = add_noise(kept, clean, noise, torch.tensor([step]))
        added = ddpm.add_noise(clean, noise, torch.tensor([step - 1]))
        torch.testing.assert_close(added, noisy, rtol=1e-5, atol=1e-6)
        guess = 0.5 * noisy
        for eta in (0.0, 0.4, 1.0):
            found = ddim.step(guess, step - 1, noisy, eta=eta, variance_noise=noise).prev_sample
            wanted = reverse_step(kept, noisy, guess, step, step - 1, eta, noise)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        drawn = ddpm.step(guess, step - 1, noisy, generator=torch.Generator().manual_seed(3)).prev_sample
        fresh = torch.randn(noisy.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        wanted = reverse_step(kept, noisy, guess, step, step - 1, 1.0, fresh)
        torch.testing.assert_close(drawn, wanted, rtol=1e-4, atol=1e-5)
