"""The law of the next token: `transformers`' own, on every path that draws one."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.language import vllm_double
from tests.language.prefix_models import VOCABULARY, family
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from taiji.core.errors import ResourceError
from taiji.language import continuous, logits_processing
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import generate
from taiji.language.logits_processing import Sampling, drawn, filtered, penalised, picked, ranked
from taiji.language.prefix_generate import generate_shared
from taiji.language.settings import GenerationSettings, LanguageSettings
from taiji.language.tiny import tiny_causal_lm
from taiji.language.vllm_engine import with_engine

CASES = {
    "plain": Sampling(1),
    "temperature": Sampling(1, temperature=0.6),
    "top-k": Sampling(1, top_k=7),
    "nucleus": Sampling(1, top_p=0.8),
    "penalty": Sampling(1, repetition_penalty=1.3),
    "all": Sampling(1, temperature=0.7, top_k=20, top_p=0.9, repetition_penalty=1.2),
}
PROMPT = [40, 41, 8]
WRITTEN = [[8, 9, 9, 30], [11, 50, 8, 12]]


def logits(seed=0):
    return torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def theirs(scores, how):
    """The logits after `transformers`' own processors, told that the prompt does not count for the penalty."""
    config = GenerationConfig(
        do_sample=True,
        temperature=how.temperature,
        top_k=how.top_k,
        top_p=how.top_p,
        eos_token_id=[3],
        pad_token_id=0,
    )
    ids = torch.tensor([PROMPT + row for row in WRITTEN])
    if how.repetition_penalty != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(how.repetition_penalty, len(PROMPT))(ids, scores)
    processors: LogitsProcessorList = family("llama")._get_logits_processor(
        config, input_ids_seq_length=7, device="cpu"
    )
    return processors(ids, scores)


@pytest.mark.parametrize("how", CASES.values(), ids=CASES)
def test_every_law_is_the_one_of_transformers(how):
    expected = theirs(logits(), how)
    found = filtered(logits(), how, WRITTEN)
    assert torch.equal(found.isfinite(), expected.isfinite()) and found.isfinite().sum() >= 4
    torch.testing.assert_close(found, expected)
    probabilities, tokens = ranked(logits(), how, WRITTEN)
    law = torch.zeros(found.shape, dtype=torch.float64).scatter(1, tokens, probabilities)
    torch.testing.assert_close(law / law.sum(1, keepdim=True), expected.double().softmax(-1), atol=1e-6, rtol=1e-4)
    assert (probabilities.diff(dim=1) <= 0).all()


def test_the_penalty_reaches_what_is_written_alone():
    plain, found = logits(), penalised(logits(), WRITTEN, 1.5)
    for row, written in enumerate(WRITTEN):
        changed = (found[row] != plain[row]).nonzero()[:, 0].tolist()
        assert changed == sorted(set(written))
        assert (found[row, written] < plain[row, written]).all(), "less likely, whatever the sign"
    assert penalised(plain, WRITTEN, 1.0) is plain
    assert torch.equal(penalised(plain, [[], []], 1.5), plain)


def test_both_samplers_count_the_completion_alone(monkeypatch):
    calls = []

    def watched(scores, written, penalty):
        calls.append([list(row) for row in written])
        return penalised(scores, written, penalty)

    monkeypatch.setattr(logits_processing, "penalised", watched)
    monkeypatch.setattr(continuous, "GUESSED", 0)  # else several tokens of a row are looked at in one call
    lm = LanguageModel(*tiny_causal_lm(), "tiny")
    prompts = ["milk and bread", "coffee"]
    settings = GenerationSettings(max_new_tokens=4, temperature=0.0, repetition_penalty=1.5, stop=())
    texts = generate(lm, prompts, settings=settings)
    ours = list(calls)
    calls.clear()
    ids = [lm.tokenizer(text).input_ids for text in prompts]
    rows = generate_shared(lm.model, ids, 1, Sampling(4, temperature=0.0, repetition_penalty=1.5))
    assert [lm.tokenizer.decode(row, skip_special_tokens=True) for row in rows] == [text for (text,) in texts]
    assert ours[0] == [[], []] and [sorted(call) for call in ours] == [sorted(call) for call in calls]
    assert calls[3] == [row[:3] for row in rows]


def test_vllm_is_given_our_penalty_as_its_logits_processor(monkeypatch, tmp_path):
    opened, asked = [], []

    class Engine:
        def __init__(self, **options):
            opened.append(options)

        def generate(self, requests, parameters, use_tqdm):
            asked.extend(parameters)
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[], finish_reason="stop")]) for _ in requests]

    vllm_double.install(monkeypatch, Engine, SimpleNamespace)
    engine = with_engine(
        LanguageModel(*tiny_causal_lm(), "tiny", source=str(tmp_path)), LanguageSettings(engine="vllm")
    )
    for penalty in (1.3, 1.0):
        generate(engine, ["milk"], settings=GenerationSettings(repetition_penalty=penalty))
    (reference,) = opened[0]["logits_processors"]
    module, name = reference.split(":")
    processor = getattr(importlib.import_module(module), name)()
    assert not processor.is_argmax_invariant()
    assert not any(hasattr(parameters, "repetition_penalty") for parameters in asked), "that would count the prompt"
    process, nothing = (processor.new_req_logits_processor(parameters) for parameters in asked)
    assert nothing is None, "requests without a penalty cost nothing"
    for row, written in enumerate(WRITTEN):
        assert torch.equal(process(written, logits()[row]), penalised(logits(), WRITTEN, 1.3)[row])


def test_a_tie_at_the_cut_leaves_top_k_tokens_to_draw_by_rank():
    flat = torch.zeros(1, 40)
    probabilities, tokens = ranked(flat, Sampling(1, top_k=5))
    assert len(np.unique(tokens)) == 5 and torch.equal(probabilities, torch.full((1, 5), 0.2, dtype=torch.float64))
    assert filtered(flat, Sampling(1, top_k=5)).isfinite().all()


def test_the_nucleus_beyond_the_first_look(monkeypatch):
    monkeypatch.setattr(logits_processing, "NUCLEUS", 3)
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(0)) * 0.1
    kept = torch.isfinite(filtered(logits, Sampling(1, top_p=0.5)))
    order = logits.argsort(-1, descending=True)
    mass = torch.softmax(logits, -1).gather(1, order).cumsum(-1)
    assert torch.equal(kept.sum(-1), (mass < 0.5).sum(-1) + 1)


def test_a_token_is_drawn_by_its_cumulative_probability():
    chances = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    scores = chances.log()
    uniform = torch.arange(1024, dtype=torch.float64) / 1024
    found = drawn(scores.expand(1024, -1), uniform)
    assert torch.bincount(found, minlength=6).tolist() == [0, 256, 0, 512, 256, 0]
    assert (found.diff() >= 0).all()
    edges = torch.tensor([0.0, 0.25, 0.75, 1 - 2**-53, 1.0], dtype=torch.float64)
    assert drawn(scores.expand(5, -1), edges).tolist() == [1, 3, 4, 4, 4]


def test_a_forbidden_token_is_never_drawn_whatever_the_rounding():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.cat(
        [torch.rand(500, generator=generator, dtype=torch.float64), torch.tensor([0.0, 1 - 2**-53, 1.0])]
    )
    for scale in (1.0, 30.0):
        scores = torch.randn(50, generator=generator) * scale
        allowed = torch.rand(50, generator=generator) < 0.3
        allowed[[0, -1]] = False
        found = drawn(scores.masked_fill(~allowed, -torch.inf).expand(len(uniform), -1), uniform)
        assert allowed[found].all()
    lone = torch.full((1, 50), -torch.inf)
    lone[0, 7] = -1e30
    assert drawn(lone.expand(len(uniform), -1), uniform).eq(7).all()
    assert drawn(torch.full((1, 50), torch.nan), uniform[:1]).tolist() == [50]


@pytest.mark.parametrize(
    "how",
    [Sampling(1, 0.0), Sampling(1), Sampling(1, 0.7, top_k=5, top_p=0.8)],
    ids=["greedy", "sampled", "cut"],
)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf], ids=["nan", "infinite"])
def test_no_token_is_picked_from_logits_that_are_no_distribution(how, wrong):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert len(picked(logits, how, [[]] * 3, [0.1, 0.5, 0.9])) == 3
    logits[1, 20] = wrong
    if wrong == torch.inf and how.temperature == 0.0:  # the most likely token is well defined
        assert picked(logits, how, [[]] * 3, [0.5] * 3)[1] == 20
    else:
        with pytest.raises(ResourceError, match="1 of 3 rows"):
            picked(logits, how, [[]] * 3, [0.5] * 3)
