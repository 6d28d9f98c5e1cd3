"""Continuous batching with look-up: the texts are those of batches and one token a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taiji.language import continuous, prefix_support
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import write
from taiji.language.lean_decode import GroupDecoder
from taiji.language.settings import GenerationSettings
from taiji.language.tiny import tiny_causal_lm

PROMPTS = [
    "milk",
    "The household buys milk, bread and coffee every week. The household buys milk, bread and coffee every week.",
    "Item title: ground coffee; Category L1: GROCERY; L2: COFFEE. Item title: ground coffee; Category L1: GROCERY",
    "x y z",
    "Category L1: GROCERY",
    "bread, bread, bread, bread, bread",
    "milk",
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    lm = LanguageModel(*tiny_causal_lm(), "tiny")
    assert prefix_support.lean_model(lm.model) is not None  # its trial decodes too, once
    return lm


@pytest.fixture
def steps(monkeypatch):
    """Tokens given to each step."""
    seen = []
    step = GroupDecoder.step

    def watched(self, tokens):
        seen.append([len(row) for row in tokens])
        return step(self, tokens)

    monkeypatch.setattr(GroupDecoder, "step", watched)
    return seen


@pytest.mark.parametrize(("batch_size", "n"), [(1, 1), (4, 1), (4, 3)])
@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"temperature": 0.0, "repetition_penalty": 1.3}, {"temperature": 0.3}, {"top_p": 0.8}],
    ids=str,
)
def test_texts_are_those_of_one_token_a_step(lm, options, batch_size, n, steps, monkeypatch):
    settings = GenerationSettings(max_new_tokens=16, batch_size=batch_size, stop=("e",), **options)
    found = write(lm, PROMPTS, n=n, settings=settings, seed=3)
    given = [count for step in steps for count in step]
    monkeypatch.setattr(prefix_support, "lean_model", lambda model: None)
    assert found == write(lm, PROMPTS, n=n, settings=settings, seed=3)
    assert max(map(len, steps)) <= max(batch_size, n)
    if options.get("temperature") in (0.0, 0.3):
        assert max(given) > 1, "something was guessed"


def test_guesses_that_are_right_save_steps_and_the_limit_holds(lm, steps):
    settings = GenerationSettings(max_new_tokens=40, temperature=0.0, stop=())
    ((written,),) = write(lm, PROMPTS[5:6], settings=settings)
    assert written.cut and len(steps) < 39, "a greedy tiny model repeats itself"
    tokens = 1 + sum(map(sum, steps))
    assert tokens >= 40


def test_a_row_that_ends_makes_room(lm, steps):
    settings = GenerationSettings(max_new_tokens=30, batch_size=4, temperature=1.0, stop=("a", "e"))
    write(lm, PROMPTS * 6, settings=settings, seed=1)
    full = [len(step) for step in steps]
    assert np.mean(full[: len(full) // 2]) > 2.5, "the batch is kept full"
    assert max(full) <= 4


def test_progress_counts_every_text(lm, monkeypatch):
    told = []

    class Display:
        def __call__(self, description, total, unit):
            return self

        def __enter__(self):
            return told.append

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("taiji.language.generate.progress", Display())
    write(lm, PROMPTS, n=2, settings=GenerationSettings(max_new_tokens=5))
    assert told == sorted(told) and told[-1] == 2 * len(PROMPTS)


def test_random_numbers_follow_the_stream_whatever_was_guessed():
    """Numbers drawn ahead for guesses that were wrong are used for the tokens that come instead."""
    expected = np.random.default_rng(0).random(12).tolist()
    row = continuous.Row(np.random.default_rng(0), continuous.Repetitions([1, 2, 3, 1, 2]))
    used, rng = [], np.random.default_rng(1)
    while len(row.written) < 12:
        row.guessed = [1, 2, 3][: int(rng.integers(0, 4))]
        numbers = row.numbers()
        assert len(numbers) == 1 + len(row.guessed)
        right = int(rng.integers(0, len(row.guessed) + 1))
        drawn = [*row.guessed[:right], *[9] * (len(numbers) - right)]
        before = len(row.written)
        assert row.accept(drawn, frozenset(), lambda tokens: False, 12) == min(right, 11 - before)
        used += numbers[: len(row.written) - before]
    assert used == expected[: len(used)]


def test_no_prompt(lm):
    assert write(lm, []) == []
    assert torch.is_inference_mode_enabled() is False
