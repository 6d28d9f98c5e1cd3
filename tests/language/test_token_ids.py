"""The ids trained on, scored and generated from are the same, for every habit of tokenizers and templates."""

from __future__ import annotations

import numpy as np
import pytest
from tests.language.families import BOS, EOS, TEMPLATES, TOKENIZERS
from transformers import AutoTokenizer

from taiji.language.causal_lm import LanguageModel
from taiji.language.chat import continuation, render
from taiji.language.chat_template import bind_template
from taiji.language.generate import Written, generate
from taiji.language.score import score_completions
from taiji.language.tiny import tiny_causal_lm
from taiji.language.token_ids import closing_ids, continued, ids_of, opening_ids, text_of
from taiji.reasoning.answers import format_completion
from taiji.reasoning.prompts import opened
from taiji.reasoning.sft import token_row

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, what next?"}]
COMPLETIONS = [
    format_completion("The household buys milk.", "Item title: oat milk"),
    format_completion('"Milk" first', "Item title: oat milk"),
    format_completion("", "Item title: oat milk"),
    format_completion("naïve 🍣", "Item title: 日本"),
]


class Recorder:
    """Stands where vLLM stands and keeps the ids that it is given."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.scored: list[tuple[list[int], int]] = []

    def generate(self, prompts, seeds, stop_ids, settings):
        self.asked += prompts
        return [[Written("", False) for _ in row] for row in seeds]

    def logprobs(self, pairs):
        self.scored += pairs
        return [np.zeros(len(ids) - first) for ids, first in pairs]


@pytest.fixture(scope="module", params=TOKENIZERS)
def lm(request) -> LanguageModel:
    tokenizer = TOKENIZERS[request.param]()
    model, _ = tiny_causal_lm(TOKENIZERS["adds nothing"]())
    return LanguageModel(model, tokenizer, "tiny", engine=Recorder())


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_same_ids_everywhere(lm, template):
    tokenizer, recorder = lm.tokenizer, lm.engine
    recorder.asked.clear()
    recorder.scored.clear()
    tokenizer.chat_template = TEMPLATES[template]
    bind_template(tokenizer, {}, None)
    prompt = render(tokenizer, MESSAGES)
    begun = opened(prompt)
    generate(lm, [begun])
    score_completions(lm, [begun] * len(COMPLETIONS), [continuation(begun, c) for c in COMPLETIONS])
    (asked,) = recorder.asked
    assert asked == tokenizer(begun, add_special_tokens=False).input_ids
    for completion, (scored, first) in zip(COMPLETIONS, recorder.scored, strict=True):
        row = token_row(tokenizer, prompt, completion)
        assert scored[:first] == asked
        assert row.ids == [*scored, lm.tokenizer.eos_token_id]
        assert 0 < row.first <= first
        # A prompt that ends with a half-open word may be read otherwise when the word goes on; the answer never is.
        said = tokenizer.decode(row.ids[first:-1], skip_special_tokens=False)
        assert said.strip() == continuation(begun, completion).strip()
    text = tokenizer.decode(asked, skip_special_tokens=False)
    assert text.count("<think>") == 1 and text.rstrip().endswith("<think>") and "</think>" not in text
    assert "Be brief." in text and "Hello, what next?" in text
    begins = (
        "BOS" in template if TEMPLATES[template] else tokenizer.convert_tokens_to_ids(BOS) in opening_ids(tokenizer)
    )
    assert text.count(BOS) == int(begins and tokenizer.bos_token is not None)


def test_a_border_that_a_token_would_merge_over():
    tokenizer = TOKENIZERS["merges over everything"]()
    prompt, completion = "Be brief. Hel", "lo, what next?"
    whole = ids_of(tokenizer, prompt + completion)
    assert whole[: len(ids_of(tokenizer, prompt))] != ids_of(tokenizer, prompt)  # the trap is there
    pair = continued(tokenizer, prompt, completion)
    assert pair.ids[: pair.first] == ids_of(tokenizer, prompt)
    assert tokenizer.decode(pair.ids) == prompt + completion
    for (start, end), token in zip(pair.offsets, pair.ids[pair.first :], strict=True):
        assert completion[start:end] == tokenizer.decode([token])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_a_tokenizer_adds_by_itself(name):
    tokenizer = TOKENIZERS[name]()
    added = {"adds BOS": ([BOS], []), "adds EOS": ([], [EOS]), "adds both": ([BOS], [EOS])}.get(name, ([], []))
    found = [tokenizer.convert_ids_to_tokens(ids) for ids in (opening_ids(tokenizer), closing_ids(tokenizer))]
    assert tuple(found) == added


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tags_of_the_answer_are_shown_and_special_tokens_are_not(name):
    tokenizer = TOKENIZERS[name]()
    ids = [*ids_of(tokenizer, COMPLETIONS[0]), tokenizer.convert_tokens_to_ids(EOS)]
    assert text_of(tokenizer, ids).strip() == COMPLETIONS[0]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_saved_tokenizer_reads_the_same(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = TEMPLATES["BOS and date"]
    bind_template(tokenizer, {}, None)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    begun = opened(render(tokenizer, MESSAGES))
    assert opened(render(again, MESSAGES)) == begun
    for completion in COMPLETIONS:
        one, two = (continued(which, begun, continuation(begun, completion)) for which in (tokenizer, again))
        assert one.ids == two.ids and one.first == two.first
