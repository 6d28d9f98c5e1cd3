"""vLLM behind our functions, driven through a double of its interface that computes with the tiny model."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.language import vllm_double

from taiji.core.errors import TaijiError
from taiji.language.causal_lm import load_language_model
from taiji.language.generate import generate, write
from taiji.language.score import score_completions
from taiji.language.settings import GenerationSettings, LanguageSettings
from taiji.language.tiny import tiny_causal_lm
from taiji.language.vllm_engine import with_engine

SETTINGS = LanguageSettings(engine="vllm", gpu_share=0.4)


class Sampling(SimpleNamespace):
    """vLLM's SamplingParams, as far as keywords go: an unknown one is an error there too."""

    KNOWN = frozenset(
        {
            "max_tokens",
            "temperature",
            "top_k",
            "top_p",
            "extra_args",
            "stop",
            "stop_token_ids",
            "include_stop_str_in_output",
            "skip_special_tokens",
            "seed",
            "prompt_logprobs",
            "detokenize",
        }
    )

    def __init__(self, **values):
        assert set(values) <= self.KNOWN
        super().__init__(**values)


class Double:
    """vLLM's LLM: greedy continuation, prompt log-probabilities as it lays them out (None first, then a dictionary a
    token)."""

    made: ClassVar[list[dict]] = []
    asked: ClassVar[list[tuple]] = []

    def __init__(self, **options):
        self.made.append(options)
        self.lm = load_language_model(options["model"], "float32", "cpu")

    def generate(self, requests, sampling, use_tqdm=True):
        return [
            self._one(request["prompt_token_ids"], params) for request, params in zip(requests, sampling, strict=True)
        ]

    def _one(self, ids, params):
        self.asked.append((tuple(ids), params))
        scores = torch.log_softmax(self.lm.model(torch.tensor([ids])).logits[0].detach().double(), -1)
        table = (
            [None, *({ids[t]: SimpleNamespace(logprob=float(scores[t - 1, ids[t]]))} for t in range(1, len(ids)))]
            if getattr(params, "prompt_logprobs", None) is not None
            else None
        )
        written, reason = list(ids), "length"
        for _ in range(params.max_tokens):
            written.append(int(self.lm.model(torch.tensor([written])).logits[0, -1].argmax()))
            if written[-1] in (getattr(params, "stop_token_ids", None) or []):
                reason = "stop"  # as there, the stop token is among the ids
                break
        output = SimpleNamespace(token_ids=written[len(ids) :], finish_reason=reason)
        return SimpleNamespace(prompt_logprobs=table, outputs=[output])


@pytest.fixture
def lm(tmp_path, monkeypatch):
    model, tokenizer = tiny_causal_lm()
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    vllm_double.install(monkeypatch, Double, Sampling)
    Double.made.clear()
    Double.asked.clear()
    return load_language_model(tmp_path / "tiny", "float32", "cpu")


def test_the_model_is_opened_as_the_settings_say(lm):
    opened = with_engine(lm, SETTINGS)
    assert Double.made == [
        {
            "model": lm.source,
            "dtype": "float32",
            "gpu_memory_utilization": 0.4,
            "enable_prefix_caching": True,
            "logits_processors": ["taiji.language.vllm_penalty:CompletionPenalty"],
        }
    ]
    assert opened.version == lm.version and with_engine(lm, LanguageSettings()) is lm


def test_scores_are_those_of_the_model_itself(lm):
    prompts, completions = (
        ["<|im_start|>user\nmilk<|im_end|>\n", "bread and ", "", "x"],
        ["coffee, every week", "butter", "tea", ""],
    )
    ours, theirs = (score_completions(which, prompts, completions) for which in (lm, with_engine(lm, SETTINGS)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
        np.testing.assert_array_equal(a.offsets, b.offsets)


def test_greedy_texts_are_those_of_the_model_itself(lm):
    settings = GenerationSettings(max_new_tokens=6, temperature=0.0, stop=())
    prompts = ["<|im_start|>user\nmilk<|im_end|>\n", "bread"]
    assert write(with_engine(lm, SETTINGS), prompts, n=2, settings=settings, seed=3) == write(
        lm, prompts, n=2, settings=settings, seed=3
    )


def test_every_sample_has_a_seed_of_its_own_that_depends_on_its_prompt_alone(lm):
    opened, settings = (
        with_engine(lm, SETTINGS),
        GenerationSettings(max_new_tokens=1, stop=("</answer>",), top_k=7, top_p=0.5),
    )

    def seeds(prompts):
        Double.asked.clear()
        generate(opened, prompts, n=2, settings=settings, seed=1)
        return [params.seed for _, params in Double.asked]

    first, turned = seeds(["a", "b"]), seeds(["b", "a"])
    assert len(set(first)) == 4 and turned == first[2:] + first[:2]
    params = Double.asked[0][1]
    assert (params.top_k, params.top_p, params.stop, params.include_stop_str_in_output) == (7, 0.5, ["</answer>"], True)
    assert params.stop_token_ids == lm.stop_ids


def test_what_is_missing_is_said(lm, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TaijiError, match=r"taiji\[gpu\]"):
        with_engine(lm, SETTINGS)
    lm.source = None
    with pytest.raises(TaijiError, match="created in memory"):
        with_engine(lm, SETTINGS)
