"""PEPO's identities, exact, and the option in the trainer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alignment.jobs import parameters
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.tokens import blended, evidence_mask, evidence_similarity, hidden_states, token_weights
from taiji.language.tiny import tiny_causal_lm


def case(seed, rows=3, length=9):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(rows, length, generator=generator, dtype=torch.float64) * 2 - 1
    entropy = torch.rand(rows, length, generator=generator, dtype=torch.float64) * 5
    mask = torch.arange(length)[None] < torch.randint(1, length + 1, (rows, 1), generator=generator)
    return similarity, entropy, mask


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(0.2, 3.0))
def test_weights_are_positive_with_mean_one_and_their_spread_is_known(seed, alpha, temperature):
    similarity, entropy, mask = case(seed)
    weights = token_weights(similarity, entropy, mask, alpha, temperature)
    assert torch.allclose(weights.sum(1), mask.sum(1).double(), atol=1e-12)
    assert (weights[mask] > 0).all() and (weights[~mask] == 0).all()
    shuffled = similarity.masked_fill(~mask, 77.0), entropy.masked_fill(~mask, -50.0)
    assert torch.equal(token_weights(*shuffled, mask, alpha, temperature), weights), "padding is never read"


def test_closed_forms():
    similarity, entropy, mask = case(1)
    mask = torch.ones_like(mask)
    ones = torch.ones_like(similarity)
    assert torch.allclose(token_weights(similarity, entropy, mask, 0.05, 1e9), ones, atol=1e-8), (
        "temperature to infinity is GRPO"
    )
    assert torch.allclose(
        token_weights(torch.full_like(similarity, 0.3), torch.full_like(entropy, 2.0), mask), ones, atol=1e-12
    ), "constant inputs are GRPO"
    assert torch.equal(blended(token_weights(similarity, entropy, mask), 0.0), ones), "the schedule starts at GRPO"
    alone = token_weights(similarity, entropy, mask, alpha=0.0)
    assert torch.allclose(alone, similarity.size(1) * torch.softmax(similarity, 1)) and not torch.allclose(
        alone, ones, atol=1e-2
    ), "alpha = 0 is not GRPO"
    spread = torch.linspace(0.5, 0.8, 50, dtype=torch.float64)[None]
    weights = token_weights(spread, torch.ones_like(spread), torch.ones_like(spread), 0.05, 1.8)
    gate = 1 + 0.05 * torch.tanh((spread - 0.5) / 0.3 - 0.5)
    logits = spread * gate / 1.8
    assert weights.max() / weights.min() == pytest.approx(float(torch.exp(logits.max() - logits.min())), rel=1e-12)
    assert float(weights.min()) > 0.9 and float(weights.max()) < 1.1, "the effect is small by construction"


def test_weights_commute_with_clipping():
    similarity, entropy, mask = case(4)
    weights = token_weights(similarity, entropy, mask)
    ratio, advantage = torch.rand_like(similarity) * 2, torch.randn(3, 1, dtype=torch.float64)

    def clipped(a):
        return torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)

    assert torch.allclose(clipped(advantage * weights), weights * clipped(advantage), atol=1e-14)


def test_similarity_is_the_mean_cosine_and_ignores_the_order_of_evidence():
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(2, 10, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    evidence = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]).bool()
    found = evidence_similarity(hidden, evidence, 4)
    for row in range(2):
        places = evidence[row].nonzero()[:, 0]
        for t in range(4):
            expected = torch.stack(
                [torch.cosine_similarity(layer[row, 6 + t], layer[row, n], dim=0) for layer in hidden for n in places]
            ).mean()
            assert found[row, t] == pytest.approx(float(expected), abs=1e-12)
    moved = [layer.clone() for layer in hidden]
    for layer in moved:
        layer[0, [0, 1, 3]] = layer[0, [3, 0, 1]]
    assert torch.allclose(evidence_similarity(moved, evidence, 4), found, atol=1e-14)


def test_evidence_is_the_history_lines():
    _, tokenizer = tiny_causal_lm()
    text = "User likes:\n- Item title: milk; price 2\n- Item title: tea\nWhat next?"
    ids = tokenizer([text, "nothing here"], padding=True, return_tensors="pt")
    mask = evidence_mask(tokenizer, ids["input_ids"], ids["attention_mask"], r"Item title: [^\n]*")
    marked = tokenizer.decode(ids["input_ids"][0][mask[0]])
    assert "milk" in marked and "tea" in marked and "What" not in marked and "User" not in marked
    assert torch.equal(mask[1], ids["attention_mask"][1].bool()), "no match: all prompt tokens"


def test_evidence_is_found_with_tokens_that_drop_a_leading_space():
    """Tokenizers in the style of Llama 2 decode "▁title" alone as "title"."""
    words = ["▁Item", "▁title:", "▁milk", "▁What", "▁next?"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="▁What"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    ids = torch.tensor([tokenizer("What Item title: milk next?")["input_ids"]])
    assert tokenizer.decode(ids[0, 2:3]) == "title:"
    mask = evidence_mask(tokenizer, ids, torch.ones_like(ids), r"Item title: \w+")
    assert mask.tolist() == [[False, True, True, True, False]]


def test_hidden_states_are_those_of_the_model():
    model, tokenizer = tiny_causal_lm()
    ids = tokenizer(["milk and bread"], return_tensors="pt")["input_ids"]
    with hidden_states(model) as store:
        model(ids)
    expected = model(ids, output_hidden_states=True).hidden_states
    assert len(store) == 1 and len(store[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(store[0], expected))
    model(ids)
    assert len(store) == 1


SGD = {"optim": "sgd", "learning_rate": 0.5, "reward_weights": [0.5, 0.5]}


def trained(job, cls, config, **options):
    trainer = job(cls, config, **SGD, **options)
    start = parameters(trainer).clone()
    trainer.train()
    return parameters(trainer) - start


def apart(a, b):
    """Distance of two updates as a share of the first one's length: rounding gives 1e-6 or so of it."""
    return float((a - b).norm() / a.norm())


def test_trainer_option(job):
    stock = trained(job, GRPOTrainer, GRPOConfig)
    fixed = {"weighting": "fixed", "token_weighting": "pepo"}
    first = trained(job, ParetoGRPOTrainer, ParetoGRPOConfig, pepo_temperature=1e9, **fixed)
    assert apart(stock, first) < 1e-5, "temperature to infinity is GRPO"
    popo = {"weighting": "popo", "aggregation": "trl", "weight_step": 0.0, "weight_floor": 0.0}
    runs = {
        name: trained(job, ParetoGRPOTrainer, ParetoGRPOConfig, pepo_temperature=0.05, **options)
        for name, options in {
            "fixed": fixed,
            "popo": {"token_weighting": "pepo", "gram_estimator": "same-batch", **popo},
            "halves": {"token_weighting": "pepo", **popo},
        }.items()
    }
    assert apart(stock, runs["fixed"]) > 0.1, "the option does something"
    assert apart(runs["fixed"], runs["popo"]) < 1e-4 and apart(runs["popo"], runs["halves"]) < 1e-4


def test_gradients_through_the_weights_matter_once_the_ratios_do(job):
    """A row's weights sum to a constant, so at ratios of one (the first pass over a batch) nothing flows through
    them."""
    updates = {
        (passes, released): trained(
            job,
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            weighting="fixed",
            token_weighting="pepo",
            pepo_temperature=0.05,
            pepo_as_released=released,
            num_iterations=passes,
            max_steps=4,
        )
        for passes in (1, 2)
        for released in (False, True)
    }
    assert apart(updates[1, False], updates[1, True]) < 1e-4
    assert apart(updates[2, False], updates[2, True]) > 0.02
