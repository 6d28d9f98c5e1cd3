"""Decoding on one copy of the prompts' keys: the logits of every step are the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.language.prefix_models import FAMILIES, VOCABULARY, family

from taiji.core.errors import TaijiError
from taiji.language.lean_decode import LeanDecoder
from taiji.language.prefix_decode import PaddedDecoder, SharedDecoder, open_decoder


@pytest.mark.parametrize("kind", [SharedDecoder, PaddedDecoder])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_every_step(name, kind):
    model, rng = family(name), np.random.default_rng(0)
    prompts = [rng.integers(0, VOCABULARY, n).tolist() for n in (20, 33, 5)]
    prompts = [prompts[0], prompts[1], prompts[0], prompts[1][:30] + prompts[2]]  # equal ones, and a common beginning
    decoder = kind(model, prompts, [2, 1, 3, 2], 12)
    texts = [list(prompts[p]) for p in decoder.prompt_of]
    running = list(range(8))
    for step in range(10):
        for place, row in enumerate(running):
            with torch.no_grad():
                expected = model(input_ids=torch.tensor([texts[row]])).logits[0, -1]
            assert (expected - decoder.logits[place]).abs().max() < 1e-4
        if step in (3, 6):
            kept = [0, 2, 3, 5, 6] if step == 3 else [1, 2, 4]
            running = [running[k] for k in kept]
            decoder.select(kept)
        tokens = rng.integers(0, VOCABULARY, len(running)).tolist()
        for row, token in zip(running, tokens):
            texts[row].append(token)
        decoder.step(tokens)


@pytest.mark.parametrize("kind", [SharedDecoder, PaddedDecoder])
def test_limits(kind):
    model = family("llama")
    decoder = kind(model, [[1, 2, 3]], 1, 1)
    decoder.step([4])
    with pytest.raises(TaijiError, match="no space left for another token"):
        decoder.step([4])
    with pytest.raises(TaijiError, match="nothing to decode"):
        kind(model, [[1, 2, 3]], 0, 1)


def test_the_model_decides_which():
    assert isinstance(open_decoder(family("llama"), [[1, 2]], 1, 1), LeanDecoder)
    watched = family("llama")
    watched.model.layers[0].register_forward_hook(lambda *_: None)
    assert isinstance(open_decoder(watched, [[1, 2]], 1, 1), SharedDecoder), (
        "the lean forward pass would not call the hook"
    )
    assert isinstance(open_decoder(family("mistral", sliding_window=4), [[1, 2]], 1, 1), PaddedDecoder)
