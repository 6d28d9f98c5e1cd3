"""Steps of fixed shapes and tokens that stay on the device: the same logits, tokens and random numbers as step by
step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.devices import DEVICES
from tests.language.prefix_models import FAMILIES, VOCABULARY, family, with_lora

from taiji.core.errors import ResourceError
from taiji.language import prefix_graph
from taiji.language.logits_processing import Sampling
from taiji.language.prefix_decode import SharedDecoder
from taiji.language.prefix_generate import ahead, step_by_step
from taiji.language.prefix_graph import GraphedDecoder

STOPS = frozenset(range(0, VOCABULARY, 8))


def prompts(sizes=(20, 33, 20)):
    rng = np.random.default_rng(0)
    return [rng.integers(1, VOCABULARY, n).tolist() for n in sizes]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", FAMILIES)
def test_fixed_shapes_give_the_logits_of_growing_ones(name, device):
    model, rng = family(name).to(device), np.random.default_rng(1)
    plain, fixed = (kind(model, prompts(), [2, 1, 3], 30) for kind in (SharedDecoder, GraphedDecoder))
    for step in range(29):
        assert (plain.logits - fixed.logits).abs().max() < 1e-4
        if step in (4, 9):
            kept = [0, 2, 3, 5] if step == 4 else [1, 2]
            plain.select(kept), fixed.select(kept)
        tokens = rng.integers(0, VOCABULARY, len(plain.prompt_of)).tolist()
        plain.step(tokens), fixed.step(tokens)
    if device == "cuda":
        assert fixed._recordable, "the step could not be recorded"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("draw", ["noise", "uniform"])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(40),
        Sampling(16, 0.7, top_k=20, min_new_tokens=5),
        Sampling(33, top_p=0.8, min_p=0.01),
        Sampling(40, 0.0),
    ],
    ids=str,
)
def test_tokens_and_random_numbers_are_those_of_looking_after_each(sampling, draw, device, monkeypatch):
    monkeypatch.setattr(prefix_graph, "LOOK", 7)
    model = family("llama").to(device)
    stops = STOPS if sampling.temperature else frozenset()
    out, after = [], []
    for way, kind in ((step_by_step, SharedDecoder), (ahead, GraphedDecoder)):
        generator = torch.Generator(device).manual_seed(5)
        decoder = kind(model, prompts(), [4, 1, 3], sampling.max_new_tokens)
        out.append(way(decoder, sampling, stops, generator, draw))
        after.append(torch.rand(3, generator=generator, device=device).tolist())
    assert out[0] == out[1]
    assert after[0] == after[1]
    if stops:
        assert len({len(row) for row in out[0]}) > 2, "rows should end at different times"


@pytest.mark.parametrize("device", DEVICES)
def test_the_global_generator_is_left_where_the_last_row_ended(device):
    model = with_lora(family("qwen3")).to(device).eval()
    out = []
    for way, kind in ((step_by_step, SharedDecoder), (ahead, GraphedDecoder)):
        torch.manual_seed(2)
        out.append(way(kind(model, prompts(), 3, 25), Sampling(25), STOPS, None, "noise"))
        out.append(torch.rand(2, device=device).tolist())
    assert out[:2] == out[2:]


def test_logits_that_are_no_numbers_are_told():
    model = family("llama")
    model.lm_head.weight.data[:] = torch.nan
    with pytest.raises(ResourceError, match="NaN"), torch.no_grad():
        ahead(GraphedDecoder(model, prompts(), 1, 20), Sampling(20), STOPS, None, "uniform")
