"""Scoring equals a token-by-token reference, whatever the batch, order, padding or tokenizer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from taiji.core.errors import TaijiError
from taiji.language.causal_lm import LanguageModel
from taiji.language.score import completion_logprobs, perplexity, score_completions
from taiji.language.tiny import CORPUS, tiny_causal_lm
from taiji.language.token_ids import continued

TEXTS = [
    "Bought: milk\n",
    "The household buys coffee; price 1.20\n<think>",
    "x",
    "日本 🍣 crème brûlée <think>why</think>",
]
COMPLETIONS = ["<answer>Item title: ground coffee; Category L1: GROCERY</answer>", " milk", "", "naïve 🍣)</answer>"]


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """A sentencepiece-style tokenizer: unigram pieces, spaces as ▁, byte-free with an unknown token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*CORPUS, *TEXTS, *COMPLETIONS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<s>", unk_token="<unk>")


def fallback_tokenizer() -> PreTrainedTokenizerFast:
    """A sentencepiece BPE as Llama's: one ▁ before the text, unknown characters as bytes."""
    special, unknown = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(
        [*CORPUS, *COMPLETIONS[:2]] * 4,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False),
    )
    learnt = json.loads(trained.to_str())["model"]
    pieces = [*special, *unknown, *(piece for piece in learnt["vocab"] if piece not in special)]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in learnt["merges"]]
    model = models.BPE(
        {piece: place for place, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<s>", unk_token="<unk>")


TOKENIZERS = {"sentencepiece unigram": unigram_tokenizer, "sentencepiece BPE": fallback_tokenizer}


@pytest.fixture(
    scope="module", params=["byte-level BPE", *TOKENIZERS, "byte-level BPE, padded", "sentencepiece BPE, padded"]
)
def lm(request) -> LanguageModel:
    make = TOKENIZERS.get(request.param.removesuffix(", padded"))
    model, tokenizer = tiny_causal_lm(make() if make else None)
    if "padded" in request.param:  # a wrapper that sharing refuses: the other way must give the same
        model.is_prompt_learning = True
    return LanguageModel(model, tokenizer, "tiny")


def reference(lm: LanguageModel, prompt: str, completion: str) -> list[float]:
    """One unpadded forward pass a token."""
    pair = continued(lm.tokenizer, prompt, completion)
    ids, first = pair.ids, pair.first
    values = []
    for place in range(first, len(ids)):
        if place == 0:
            values.append(0.0)
            continue
        with torch.inference_mode():
            logits = lm.model(torch.tensor([ids[:place]])).logits[0, -1]
        values.append(float(torch.log_softmax(logits.double(), -1)[ids[place]]))
    return values


@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(TEXTS) | st.text(min_size=1, max_size=20),
            st.sampled_from(COMPLETIONS) | st.text(max_size=20),
        ),
        min_size=1,
        max_size=7,
    ),
    batch_size=st.integers(1, 8),
)
@settings(max_examples=20, deadline=None)
def test_scores_equal_the_reference(lm, pairs, batch_size):
    scored = score_completions(lm, [p for p, _ in pairs], [c for _, c in pairs], batch_size)
    for (prompt, completion), text in zip(pairs, scored, strict=True):
        np.testing.assert_allclose(text.logprobs, reference(lm, prompt, completion), atol=1e-5, rtol=0)


def test_order_and_batch_do_not_matter(lm):
    prompts, completions = TEXTS * 2, COMPLETIONS + COMPLETIONS[::-1]
    one = completion_logprobs(lm, prompts, completions, batch_size=1)
    other = completion_logprobs(lm, prompts[::-1], completions[::-1], batch_size=5)[::-1]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_completion_follows_the_ids_of_its_prompt(lm):
    for prompt in TEXTS:
        asked = lm.tokenizer(prompt, add_special_tokens=False).input_ids
        for completion in COMPLETIONS:
            pair = continued(lm.tokenizer, prompt, completion)
            assert pair.ids[: pair.first] == asked
            assert len(pair.offsets) == len(pair.ids) - pair.first
            assert (pair.offsets >= 0).all()
            assert (pair.offsets[:, 1] <= len(completion)).all()


def test_span_leaves_the_tag_out(lm):
    completion = "<answer>Item title: ground coffee</answer>"
    (scored,) = score_completions(lm, ["buy: "], [completion])
    start, end = completion.index("Item"), completion.index("</answer>")
    chosen = (
        (scored.offsets[:, 0] >= start) & (scored.offsets[:, 1] <= end) & (scored.offsets[:, 1] > scored.offsets[:, 0])
    )
    np.testing.assert_array_equal(scored.span(start, end), scored.logprobs[chosen])
    assert 0 < len(scored.span(start, end)) < len(scored.logprobs)


def test_span_falls_back_to_overlap(lm):
    (scored,) = score_completions(lm, ["buy: "], ["household coffee"])
    widest = int(np.argmax(scored.offsets[:, 1] - scored.offsets[:, 0]))
    start, end = scored.offsets[widest]
    assert end - start > 1
    assert scored.span(int(start), int(start) + 1).tolist() == [scored.logprobs[widest]]


def test_perplexity_of_a_uniform_guess():
    assert perplexity(np.log(np.full(5, 0.25))) == pytest.approx(4.0)
    assert np.isnan(perplexity(np.empty(0)))


def test_too_long_a_text_is_an_error(lm):
    lm.model.config.max_position_embeddings = 8
    try:
        with pytest.raises(TaijiError, match="longer than the model's context"):
            score_completions(lm, ["one two three four five six seven eight nine " * 3], ["ten"])
    finally:
        lm.model.config.max_position_embeddings = 4096
