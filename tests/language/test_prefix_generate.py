"""Shared generation: greedy and seeded sampling equal `transformers` token for token; the distribution is the
model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.language.prefix_models import FAMILIES, VOCABULARY, family, with_lora
from transformers.generation.logits_process import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from taiji.core.errors import ResourceError
from taiji.language.logits_processing import Sampling
from taiji.language.prefix_generate import generate_shared

STOPS = [3, 7]


def prompts(seed=0, sizes=(20, 20, 31)):
    rng = np.random.default_rng(seed)
    return [rng.integers(8, VOCABULARY, n).tolist() for n in sizes]


def theirs(model, rows, **options):
    """`transformers`' own generation of left-padded rows, cut after the first stop."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    out = model.generate(ids, attention_mask=mask, eos_token_id=STOPS, pad_token_id=0, **options)[:, width:].tolist()
    return [row[: next((n + 1 for n, token in enumerate(row) if token in STOPS), len(row))] for row in out]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_is_equal_token_for_token(name):
    model = family(name)
    rows = prompts()
    expected = theirs(model, rows, do_sample=False, max_new_tokens=25)
    assert generate_shared(model, rows, 1, Sampling(25, temperature=0.0), stop_ids=STOPS) == expected
    twice = generate_shared(model, rows, 2, Sampling(25, temperature=0.0), stop_ids=STOPS)
    assert twice == [row for row in expected for _ in range(2)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6, "top_k": 20},
        {"top_p": 0.7},
        {"min_p": 0.1, "repetition_penalty": 1.3, "min_new_tokens": 6},
    ],
    ids=str,
)
def test_sampling_draws_the_tokens_that_transformers_draws(options):
    model = family("llama")
    rows = [row for row in prompts(sizes=(20, 20)) for _ in range(4)]
    torch.manual_seed(5)
    rest = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
    penalty = rest.pop("repetition_penalty", None)
    ours = [RepetitionPenaltyLogitsProcessor(penalty, 20)] if penalty else []  # the prompt's 20 tokens do not count
    expected = theirs(
        model, rows, do_sample=True, max_new_tokens=20, logits_processor=LogitsProcessorList(ours), **rest
    )
    torch.manual_seed(5)
    found = generate_shared(model, rows, 1, Sampling(20, **options), stop_ids=STOPS)
    assert found == expected
    assert len({len(row) for row in found}) > 1, "some rows ended early"


@pytest.mark.parametrize("draw", ["noise", "uniform"])
def test_the_sampled_distribution_is_the_models(draw):
    model = family("llama", vocab_size=12)
    prompt = [5, 9, 8, 11, 4]
    found = generate_shared(model, [prompt], 4000, Sampling(2), generator=torch.Generator().manual_seed(0), draw=draw)
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([prompt])).logits[0, -1], -1)
        second = torch.softmax(model(torch.tensor([[*prompt, t] for t in range(12)])).logits[:, -1], -1)
    expected = (first[:, None] * second).flatten().double().numpy() * 4000
    counts = np.bincount([a * 12 + b for a, b in found], minlength=144)
    usual = expected >= 5
    statistic = float(((counts - expected) ** 2 / expected)[usual].sum())
    freedom = int(usual.sum())
    assert statistic < freedom + 4 * np.sqrt(2 * freedom), "chi-square within four standard deviations"


def test_one_number_a_row_comes_from_the_seed_and_does_not_depend_on_other_rows_ends():
    model = family("llama")
    rows = [row for row in prompts(sizes=(20, 20)) for _ in range(4)]

    def tokens(seed, stops):
        generator = torch.Generator().manual_seed(seed)
        how = Sampling(20, temperature=0.8, top_k=30, top_p=0.9)
        return generate_shared(model, rows, 1, how, stop_ids=stops, generator=generator, draw="uniform")

    whole, cut = tokens(0, []), tokens(0, STOPS)
    assert cut == tokens(0, STOPS) != tokens(1, STOPS)
    assert len({len(row) for row in cut}) > 1, "some rows ended early"
    assert all(row == full[: len(row)] for row, full in zip(cut, whole))


@pytest.mark.parametrize("draw", ["noise", "uniform"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_logits_that_are_not_numbers_are_named(draw, temperature):
    model = family("llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ResourceError, match="NaN"):
        generate_shared(model, prompts(), 1, Sampling(3, temperature), draw=draw)


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_take_part_and_nothing_is_left_behind(merge):
    model = with_lora(family("llama")).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rows = prompts()
    found = generate_shared(model, rows, 1, Sampling(15, temperature=0.0), stop_ids=STOPS, merge=merge)
    assert model.training and all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "to the bit"
    assert found == theirs(model.eval(), rows, do_sample=False, max_new_tokens=15)
