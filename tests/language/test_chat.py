"""Chat rendering: templates of several families, no doubled `<think>`."""

from __future__ import annotations

import pytest

from taiji.language.chat import continuation, render
from taiji.language.tiny import CHAT_TEMPLATE, tiny_tokenizer

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT_TEMPLATE
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_the_prefill_follows_the_generation_prompt(tokenizer):
    tokenizer.chat_template = CHAT_TEMPLATE
    text = render(tokenizer, MESSAGES, "<think>")
    assert (
        text
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>"
    )


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", "<think>\n\n"])
@pytest.mark.parametrize("prefill", ["<think>", "<think>\n", "<think>The list", ""])
def test_think_is_never_doubled(tokenizer, opening, prefill):
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n{%", f"assistant\n{opening}{{%")
    text = render(tokenizer, MESSAGES, prefill)
    assert text.count("<think>") == 1
    assert text.endswith("The list") == ("The list" in prefill)


def test_a_template_without_system_role(tokenizer):
    tokenizer.chat_template = NO_SYSTEM
    assert "user\nBe brief.\n\nHello" in render(tokenizer, MESSAGES)


def test_without_a_template(tokenizer):
    tokenizer.chat_template = None
    assert render(tokenizer, MESSAGES, "Yes") == "Be brief.\n\nHello\n\nYes"


def test_continuation_leaves_other_text_alone():
    assert continuation("assistant\n", "<think>a") == "<think>a"
    assert continuation("assistant\n<think>\n", "<think>a</think>") == "a</think>"
    assert continuation("assistant\n<think>", "plain") == "plain"
