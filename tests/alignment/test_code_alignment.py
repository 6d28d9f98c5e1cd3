"""The objective's identities; a reward that nothing tells apart moves nothing; one that does is earned, and the next
item stays."""

import numpy as np
import pytest
import torch

from taiji.alignment.code_alignment import (
    CodeAlignmentSettings,
    align_decoder,
    code_log_chances,
    group_loss,
    mean_reward,
    ranker_reward,
)
from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.core.errors import InputError
from taiji.models.retrieval.code_decoder import CodeDecoder, CodeDecoderSettings
from taiji.testing import checkerboard, requests_of

ITEMS = 12
CODES = np.stack([np.arange(ITEMS) % 4, np.arange(ITEMS) // 4], axis=1)
QUICK = CodeAlignmentSettings(weighting="fixed", steps=1, batch=4, group=6, next_weight=0.0, beta=0.0)


@pytest.fixture(scope="module")
def decoder() -> CodeDecoder:
    settings = CodeDecoderSettings(width=16, layers=1, dropout=0.0, epochs=6, batch=8, learning_rate=1e-2, beam=ITEMS)
    return CodeDecoder(settings, codes=CODES).fit(checkerboard(users=16, items=ITEMS, rounds=3))


def wanted(requests: Requests, items: np.ndarray) -> np.ndarray:
    """Value items divisible by three, and, as a second reward, those divisible by four."""
    values = np.stack([items % 3 == 0, items % 4 == 0], axis=2).astype(float)
    return np.where((items == NO_ITEM)[..., None], np.nan, values)


def test_log_chances_are_the_scores_of_the_search(decoder):
    requests = requests_of(decoder.dataset, 4)
    slate = decoder.retrieve(requests, 6)
    with torch.no_grad():
        found = code_log_chances(decoder.network, decoder, requests, slate.items)
    assert found.shape == (4, 6, 2)
    np.testing.assert_allclose(found.sum(dim=2).numpy(), slate.scores, atol=1e-5)


def test_group_loss():
    """At the reference it is the policy gradient; beyond the clip there is none; the divergence is least at the
    reference."""
    reference = torch.tensor([[-1.0, -2.0], [-0.5, -1.5]], dtype=torch.float64)
    chances, advantages = reference.clone().requires_grad_(), torch.tensor([1.0, -1.0], dtype=torch.float64)
    loss = group_loss(chances, reference, advantages, clip=0.2, beta=0.3)
    loss.backward()
    torch.testing.assert_close(chances.grad, -advantages[:, None].expand(2, 2) / 4)
    far = (reference + torch.tensor([[0.5], [-0.5]])).requires_grad_()
    group_loss(far, reference, advantages, clip=0.2, beta=0.0).backward()
    assert (far.grad == 0).all()
    still = torch.zeros(2, dtype=torch.float64)
    assert float(group_loss(reference, reference, still, 0.2, 1.0)) == 0
    assert float(group_loss(reference + 0.1, reference, still, 0.2, 1.0)) > 0


@pytest.mark.parametrize("weighting", ["fixed", "popo", "popo-covariance"])
def test_a_reward_that_tells_nothing_apart_moves_nothing(decoder, weighting):
    def constant(requests, items):
        return np.ones((*items.shape, 2))

    requests = requests_of(decoder.dataset)
    made = align_decoder(decoder, requests, constant, QUICK.model_copy(update={"weighting": weighting, "steps": 3}))
    for before, after in zip(decoder.network.parameters(), made.network.parameters()):
        assert torch.equal(before, after)
    assert made.facts["alignment"][0]["weights"] == [0.5, 0.5] and "alignment" not in decoder.facts


def test_a_reward_is_earned_and_the_next_item_stays(decoder):
    requests = requests_of(decoder.dataset, 16)
    settings = CodeAlignmentSettings(
        steps=12, batch=16, group=6, learning_rate=5e-3, sync_every=4, beta=0.01, next_weight=0.2
    )
    made = align_decoder(decoder, requests, wanted, settings)
    before, after = mean_reward(decoder, requests, wanted, 3), mean_reward(made, requests, wanted, 3)
    assert after.sum() > before.sum() + 0.1
    colour = (requests.user[:, None] + made.retrieve(requests, 3).items) % 2 == 0
    assert colour.mean() > 0.9  # what the users took is still what they get
    assert made.version != decoder.version


def test_a_seed_decides_everything(decoder):
    requests, settings = requests_of(decoder.dataset, 4), QUICK.model_copy(update={"steps": 2, "next_weight": 1.0})
    made = [align_decoder(decoder, requests, wanted, settings, seed=seed).version for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_rewards_of_a_ranker():
    class Ranker:
        def encode(self, requests):
            return requests

        def score(self, state, slate: Slate):
            return {"click": slate.items / 10 + state.user[:, None], "stay": slate.items * 0.0}

    found = ranker_reward(Ranker(), ("click", "stay"))(Requests([1, 2], [0, 0]), np.array([[3, 4], [5, NO_ITEM]]))
    np.testing.assert_allclose(found[..., 0], [[1.3, 1.4], [2.5, np.nan]])
    assert found.shape == (2, 2, 2) and np.isnan(found[1, 1]).all()


def test_what_does_not_fit_is_an_error(decoder):
    requests = requests_of(decoder.dataset)
    with pytest.raises(InputError):
        align_decoder(decoder, requests.take(slice(0, 0)), wanted, QUICK)
    with pytest.raises(InputError):
        align_decoder(decoder, requests, lambda requests, items: np.zeros(items.shape), QUICK)
