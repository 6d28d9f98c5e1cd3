"""Generation: reproducible, greedy equal to a step-by-step reference, stops, errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import generate
from taiji.language.settings import GenerationSettings
from taiji.language.tiny import tiny_causal_lm

PROMPTS = ["milk", "The household buys bread and coffee every week.", "Category L1: GROCERY; L2: COFFEE", "x y z"]
SHORT = GenerationSettings(max_new_tokens=12, batch_size=4)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel(*tiny_causal_lm(), "tiny")


def test_greedy_equals_the_reference(lm):
    texts = generate(lm, PROMPTS, settings=SHORT.model_copy(update={"temperature": 0.0}))
    for prompt, (text,) in zip(PROMPTS, texts, strict=True):
        ids = lm.tokenizer(prompt, add_special_tokens=False).input_ids
        new: list[int] = []
        while len(new) < 12:
            with torch.inference_mode():
                token = int(lm.model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token in lm.stop_ids:
                break
            new.append(token)
        assert text == lm.tokenizer.decode(new, skip_special_tokens=True)


@given(order=st.permutations(range(4)), batch_size=st.integers(1, 9), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_texts_do_not_depend_on_the_batch(lm, order, batch_size, seed):
    one = generate(lm, PROMPTS, n=2, settings=SHORT, seed=seed)
    other = generate(
        lm, [PROMPTS[i] for i in order], n=2, settings=SHORT.model_copy(update={"batch_size": batch_size}), seed=seed
    )
    assert [one[i] for i in order] == other


def test_samples_and_seeds_differ(lm):
    (samples,) = generate(lm, PROMPTS[:1], n=6, settings=SHORT, seed=0)
    assert len(set(samples)) > 1
    assert generate(lm, PROMPTS[:1], n=6, settings=SHORT, seed=1) != [samples]
    assert generate(lm, PROMPTS[:1], n=6, settings=SHORT, seed=0) == [samples]


def test_a_prompt_that_occurs_twice_gets_other_samples(lm):
    one, two = generate(lm, [PROMPTS[0]] * 2, settings=SHORT.model_copy(update={"max_new_tokens": 30}))
    assert one != two


def test_stop_text_ends_the_completion(lm):
    (whole,) = generate(lm, PROMPTS[:1], settings=SHORT)[0]
    stop = whole[3:5]
    (cut,) = generate(lm, PROMPTS[:1], settings=SHORT.model_copy(update={"stop": (stop,)}))[0]
    assert cut == whole[: whole.index(stop) + len(stop)]


def test_sampling_follows_the_distribution(lm):
    draws = generate(
        lm,
        ["milk"],
        n=600,
        settings=GenerationSettings(max_new_tokens=1, temperature=1.0, top_k=3, top_p=1.0, batch_size=600),
    )[0]
    with torch.inference_mode():
        logits = lm.model(torch.tensor([lm.tokenizer("milk").input_ids])).logits[0, -1]
    top = logits.topk(3)
    for probability, token in zip(torch.softmax(top.values, -1).tolist(), top.indices.tolist()):
        share = draws.count(lm.tokenizer.decode([token], skip_special_tokens=True)) / len(draws)
        assert share == pytest.approx(probability, abs=0.08)


def test_repetition_penalty_spreads_the_tokens(lm):
    greedy = SHORT.model_copy(update={"temperature": 0.0, "max_new_tokens": 20})
    distinct = []
    for penalty in (1.0, 50.0):
        (text,) = generate(lm, PROMPTS[:1], settings=greedy.model_copy(update={"repetition_penalty": penalty}))[0]
        tokens = lm.tokenizer(text).input_ids
        distinct.append(len(set(tokens)) / len(tokens))
    assert distinct[1] > distinct[0]


def test_no_prompts_and_bad_prompts(lm):
    assert generate(lm, []) == []
    with pytest.raises(TaijiError, match="empty"):
        generate(lm, [""])
    with pytest.raises(TaijiError, match="exceed the model's context"):
        generate(lm, ["milk"], settings=GenerationSettings(max_new_tokens=5000))
