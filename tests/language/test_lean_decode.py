"""Decoding rows that come and go, several tokens a step: the logits are the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.language.prefix_models import VOCABULARY, family, with_lora

from taiji.core.errors import InputError
from taiji.language import lean_decode
from taiji.language.lean_decode import GroupDecoder, LeanDecoder, groups_of
from taiji.language.lean_forward import read_lean
from taiji.language.prefix_decode import SharedDecoder
from taiji.language.prefix_lora import merged_adapters

LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


def alone(model, text):
    with torch.no_grad():
        return model(input_ids=torch.tensor([text])).logits[0]


def some(rng, count):
    return rng.integers(0, VOCABULARY, count).tolist()


@pytest.mark.parametrize("width", [2, 16])
@pytest.mark.parametrize(
    "name, changes",
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma", {}),
        ("gemma3", {"layer_types": LAYERS, "sliding_window": 7}),
        ("gemma3", {"layer_types": LAYERS, "sliding_window": 30}),
        ("mistral", {"sliding_window": 9}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    ],
    ids=["llama", "qwen2", "qwen3", "gemma", "gemma3", "gemma3-long-window", "mistral", "qwen2-window"],
)
def test_logits_of_every_step(name, changes, width, monkeypatch):
    """With windows shorter than the prompts, longer than all texts but one, and passed during decoding."""
    monkeypatch.setattr(lean_decode, "WIDTH", width)
    model, rng = family(name, **changes), np.random.default_rng(0)
    prompts = [some(rng, n) for n in (20, 33, 5)]
    prompts = [prompts[0], prompts[1], prompts[0], prompts[1][:30] + prompts[2]]  # equal ones, and a common beginning
    decoder = LeanDecoder(read_lean(model), prompts, [2, 1, 3, 2], 12)
    texts = [list(prompts[p]) for p in decoder.prompt_of]
    running = list(range(8))
    for step in range(12):
        for place, row in enumerate(running):
            assert (alone(model, texts[row])[-1] - decoder.logits[place]).abs().max() < 1e-4
        if step in (3, 6):
            kept = [0, 2, 3, 5, 6] if step == 3 else [1, 2, 4]
            running = [running[k] for k in kept]
            decoder.select(kept)
            assert decoder.prompt_of.tolist() == [[0, 0, 1, 2, 2, 2, 3, 3][row] for row in running]
        tokens = some(rng, len(running))
        for row, token in zip(running, tokens):
            texts[row].append(token)
        decoder.step(tokens)
    with pytest.raises(InputError, match="no space left for another token"):
        decoder.step(tokens)


def test_rows_come_and_go_and_take_several_tokens_of_which_some_are_forgotten():
    """A random course of admissions, steps, forgotten tokens and departures; every logit is compared."""
    model, rng = family("llama"), np.random.default_rng(1)
    decoder = GroupDecoder(read_lean(model), 4)
    texts, moved = [], 0
    for _ in range(25):
        if decoder.free and (not texts or rng.random() < 0.5):
            prompt = some(rng, int(rng.integers(3, 40)))
            new = [list(prompt) for _ in range(int(rng.integers(1, 4)))]
            logits = decoder.admit(new)
            for row, text in zip(logits, new):
                assert (alone(model, text)[-1] - row).abs().max() < 1e-4
            texts += new
        tokens = [some(rng, int(rng.integers(1, 4))) for _ in texts]
        logits, at = decoder.step(tokens), 0
        for text, given in zip(texts, tokens):
            expected = alone(model, text + given)[-len(given) :]
            assert (expected - logits[at : at + len(given)]).abs().max() < 1e-4
            at += len(given)
        kept = [int(rng.integers(1, len(given) + 1)) for given in tokens]
        decoder.keep(kept)
        for text, given, count in zip(texts, tokens, kept):
            text += given[:count]
        staying = [place for place in range(len(texts)) if rng.random() < 0.8]
        moved += len(staying) < len(texts)
        decoder.select(staying)
        texts = [texts[place] for place in staying]
        if not texts:
            assert decoder.free == 4
    assert moved > 5


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["apart", "together"])
def test_common_beginnings(share, monkeypatch):
    monkeypatch.setattr(lean_decode, "SHARED", share)
    model, rng = family("qwen3"), np.random.default_rng(2)
    preamble = some(rng, 30)
    prompts = [preamble + some(rng, n) for n in (3, 9, 5)]
    decoder = GroupDecoder(read_lean(model), 3)
    logits = decoder.admit(prompts)
    following = decoder.step([[5], [6, 7], [8]])
    for row, prompt, given, last in zip(logits, prompts, ([5], [6, 7], [8]), (0, 2, 3)):
        assert (alone(model, prompt)[-1] - row).abs().max() < 1e-4
        assert (alone(model, prompt + given)[-1] - following[last]).abs().max() < 1e-4


def test_bfloat16_is_as_close_to_float32_as_the_shared_decoder():
    rng = np.random.default_rng(3)
    prompts, tokens = [some(rng, 40), some(rng, 25)], [some(rng, 3) for _ in range(6)]
    model = family("llama")
    exact = torch.stack([alone(model, prompts[0] + [row[0] for row in tokens])[39:].double()])
    half = family("llama").bfloat16()
    errors = []
    for decoder in (SharedDecoder(half, prompts, [1, 2], 6), LeanDecoder(read_lean(half), prompts, [1, 2], 6)):
        found = [decoder.logits[0]] + [decoder.step(row)[0] for row in tokens]
        errors.append(float((torch.stack(found) - exact[0]).norm() / exact.norm()))
    assert errors[1] < 1.5 * errors[0] + 1e-3


def test_buffers_follow_the_longest_running_row():
    model, rng = family("llama"), np.random.default_rng(5)
    decoder, long, short = GroupDecoder(read_lean(model), 2), some(rng, 200), some(rng, 10)
    decoder.admit([long, short])
    decoder.step([[1], [2]])
    assert decoder.room >= 201
    decoder.select([1])
    logits = decoder.step([[3]])
    assert decoder.room < 32
    assert (alone(model, [*short, 2, 3])[-1] - logits[0]).abs().max() < 1e-4
    decoder.admit([long])
    logits = decoder.step([[4], [5]])
    assert (alone(model, [*short, 2, 3, 4])[-1] - logits[0]).abs().max() < 1e-4
    assert (alone(model, [*long, 5])[-1] - logits[1]).abs().max() < 1e-4


def test_merged_adapters_take_part():
    model, rng = with_lora(family("llama")).eval(), np.random.default_rng(4)
    prompt = some(rng, 20)
    with merged_adapters(model):
        decoder = LeanDecoder(read_lean(model), [prompt], 1, 2)
        decoder.step([7])
    assert (alone(model, [*prompt, 7])[-1] - decoder.logits[0]).abs().max() < 1e-4


def test_groups_and_errors(monkeypatch):
    monkeypatch.setattr(lean_decode, "WIDTH", 2)
    assert groups_of([[1], [2], [1], [1]]) == {((1,), 0): [0, 2], ((2,), 0): [1], ((1,), 1): [3]}
    lean = read_lean(family("llama"))
    with pytest.raises(InputError, match="too many prompts"):
        GroupDecoder(lean, 1).admit([[1], [2]])
    decoder = GroupDecoder(lean, 2)
    decoder.admit([[1], [2]])
    with pytest.raises(InputError, match="a list is empty"):
        decoder.step([[1], []])
    with pytest.raises(InputError, match="nothing to decode"):
        LeanDecoder(lean, [[1]], 0, 1)
