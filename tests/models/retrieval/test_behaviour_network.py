"""What passes a gradient to what, what guidance does, and where the released code differs."""

import pytest
import torch

from taiji.models.retrieval.behaviour_network import BehaviourNetwork
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings

SMALL = BehaviourDiffusionSettings(width=8, dropout=0.0, steps=20, sampler_steps=4)
HISTORIES = torch.tensor([[8, 3, 0, 0], [2, 8, 5, 1]])
"""Items of a catalogue of 7; 8 is the mask."""
BEHAVIOURS = torch.tensor([[2, 1, 0, 0], [1, 3, 2, 3]])
PLACES = torch.tensor([0, 5])


def network_of(**changed):
    torch.manual_seed(0)
    made = BehaviourNetwork(7, 3, SMALL.model_copy(update=changed)).double().eval()
    for block in made.denoiser.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.2)
    return made


def noise(seed=1):
    return torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def latents(network):
    with torch.no_grad():
        agnostic = network.encode(HISTORIES, network.masking(BEHAVIOURS, PLACES), PLACES)
        return network.encode(HISTORIES, BEHAVIOURS, PLACES), agnostic


def test_a_masked_place_does_not_see_its_own_item():
    """Whatever item was masked, only the mask is read there; its behaviour is read, unless it is masked as well."""
    network = network_of()
    specific, agnostic = latents(network)
    other = BEHAVIOURS.clone()
    other[0, 0], other[1, 1] = 3, 1
    with torch.no_grad():
        assert (network.encode(HISTORIES, other, PLACES) != specific).any(dim=1).all()
        found = network.encode(HISTORIES, network.masking(other, PLACES), PLACES)
    torch.testing.assert_close(found, agnostic, rtol=0, atol=0)


def test_padding_changes_nothing():
    network = network_of()
    whole = network.sampled(HISTORIES[:1], BEHAVIOURS[:1], PLACES[:1], noise()[:1])
    short = network.sampled(HISTORIES[:1, :2], BEHAVIOURS[:1, :2], PLACES[:1], noise()[:1])
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-12)


@pytest.mark.parametrize("guidance", [0.0, 1.0], ids=str)
def test_an_oracle_denoiser_reproduces_the_target(monkeypatch, guidance):
    network = network_of(guidance=guidance)
    specific, _ = latents(network)
    monkeypatch.setattr(
        network.denoiser, "forward", lambda noisy, step, agnostic, told: specific.repeat(len(noisy) // 2, 1)
    )
    found = network.sampled(HISTORIES, BEHAVIOURS, PLACES, noise())
    torch.testing.assert_close(found, specific, rtol=0, atol=1e-12)
    told, step = torch.ones(2, dtype=torch.bool), torch.tensor([1, 20])
    assert not network.transfer_loss(HISTORIES, BEHAVIOURS, PLACES, told, step, noise()).any()


def test_guidance_0_is_the_conditional_prediction():
    """Both by leaving the second evaluation out and as the limit of it."""
    without, little = network_of(guidance=0.0), network_of(guidance=1e-13)
    _, agnostic = latents(without)
    step, told = torch.tensor([5, 9]), torch.tensor([2, 3])
    conditional = without.denoiser(noise(), step, agnostic, told)
    torch.testing.assert_close(without.predicted(noise(), step, agnostic, told), conditional, rtol=0, atol=0)
    torch.testing.assert_close(little.predicted(noise(), step, agnostic, told), conditional, rtol=0, atol=1e-10)
    guided = network_of(guidance=2.0).predicted(noise(), step, agnostic, told)
    unconditional = without.denoiser(noise(), step, agnostic, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(guided, 3 * conditional - 2 * unconditional, rtol=0, atol=1e-12)


def test_guidance_as_released_adds_a_sample_begun_at_the_other(monkeypatch):
    """With a denoiser that returns one value told the behaviour and another untold, the released sum is (1 + w) a + w
    b, not (1 + w) a − w b."""
    started = []

    def constant(noisy, step, agnostic, told):
        started.append(noisy)
        return torch.where(told[:, None] > 0, 1.0, 3.0).double().expand_as(noisy)

    for released, wanted in ((("guidance",), 2 * 1 + 3), ((), 2 * 1 - 3)):
        network = network_of(as_released=released)
        monkeypatch.setattr(network.denoiser, "forward", constant)
        found = network.sampled(HISTORIES, BEHAVIOURS, PLACES, noise())
        torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=0, atol=1e-12)
    torch.testing.assert_close(started[4], torch.ones(2, 8).double(), rtol=0, atol=1e-12)


def conditions(network, monkeypatch):
    """Return the agnostic latents that the denoiser reads when the sampler asks it first."""
    read = []
    monkeypatch.setattr(network.denoiser, "forward", lambda x, step, condition, told: (read.append(condition), x)[1])
    network.sampled(HISTORIES, BEHAVIOURS, PLACES, noise())
    return read[0][:2]


def test_masking_as_released_shows_the_condition_the_behaviour(monkeypatch):
    specific, agnostic = latents(network_of())
    released = network_of(as_released=("masking",))
    torch.testing.assert_close(conditions(released, monkeypatch), specific, rtol=0, atol=0)
    torch.testing.assert_close(conditions(network_of(), monkeypatch), agnostic, rtol=0, atol=0)


def trained(network):
    return {
        name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None and value.grad.any()
    }


def test_gradients_stop():
    """The diffusion's loss trains the denoiser alone; the head's, on samples, neither it nor the encoder nor the items'
    vectors."""
    network = network_of()
    told, step = torch.tensor([True, False]), torch.tensor([3, 20])
    network.transfer_loss(HISTORIES, BEHAVIOURS, PLACES, told, step, noise()).sum().backward()
    assert trained(network) == {"denoiser"}
    network.zero_grad(set_to_none=True)
    latent = network.sampled(HISTORIES, BEHAVIOURS, PLACES, noise())
    (network.asked(latent) @ network.items(fixed=True).T).logsumexp(dim=1).sum().backward()
    assert trained(network) == {"head", "bias"}


def test_a_row_that_is_not_told_its_behaviour_reads_none(monkeypatch):
    network, read = network_of(), []
    monkeypatch.setattr(network.denoiser, "forward", lambda x, step, condition, told: (read.append(told), x)[1])
    told, step = torch.tensor([True, False]), torch.tensor([3, 20])
    network.transfer_loss(HISTORIES, BEHAVIOURS, PLACES, told, step, noise())
    assert read[0].tolist() == [2, 0]


def test_an_interaction_whose_behaviour_is_not_known_is_like_one_that_is_not_told():
    network = network_of()
    unknown = network.masking(BEHAVIOURS, PLACES)
    step, told = torch.tensor([3, 20]), torch.ones(2, dtype=torch.bool)
    found = network.transfer_loss(HISTORIES, unknown, PLACES, told, step, noise())
    torch.testing.assert_close(
        found, network.transfer_loss(HISTORIES, unknown, PLACES, ~told, step, noise()), rtol=0, atol=0
    )
    assert torch.isfinite(network.sampled(HISTORIES, unknown, PLACES, noise())).all()
