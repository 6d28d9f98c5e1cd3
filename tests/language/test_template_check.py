"""What a look at a prompt's ends finds, for each habit of templates and tokenizers."""

from __future__ import annotations

from datetime import date
from importlib.resources import files

import pytest
from tests.language.families import BOS, TEMPLATES, TOKENIZERS, byte_level, ending

from taiji.language.chat import render
from taiji.language.chat_template import bind_template
from taiji.language.template_check import SAMPLE, look_at_prompt
from taiji.language.tiny import CHAT_TEMPLATE
from taiji.reasoning.prompts import opened


def look(template, tokenizer=None, **arguments):
    tokenizer = tokenizer or byte_level()
    tokenizer.chat_template = template
    bind_template(tokenizer, arguments, None)
    return look_at_prompt(tokenizer)


@pytest.mark.parametrize(
    ("template", "end", "remark"),
    [
        ("plain", "assistant\n<think>", ""),
        ("opens think", "assistant\n<think>\n", "opens `<think>`"),
        ("closes an empty think", "assistant\n<think>", "closes an empty"),
        ("prints the date", "assistant\n<think>", "prints a date"),
        ("forbids system", "assistant\n<think>", "no system role"),
        ("forgets system", "assistant\n<think>", "no system role"),
        ("none", "next?\n\n<think>", "no chat template"),
    ],
)
def test_remarks(template, end, remark):
    found = look(TEMPLATES[template])
    assert found.end.endswith(end) and not found.warnings
    assert any(remark in text for text in found.remarks) if remark else not found.remarks


def test_an_argument_shows_in_the_end_of_a_prompt():
    assert "closes" in look(TEMPLATES["hybrid"]).remarks[0]
    assert look(TEMPLATES["hybrid"], enable_thinking=True).end.endswith("assistant\n<think>\n")


def test_a_bos_that_is_written_and_added_is_there_once():
    found = look(TEMPLATES["writes BOS"], TOKENIZERS["adds BOS"]())
    assert found.start.startswith(f"{BOS}<|im_start|>") and not found.warnings
    assert "here it occurs once" in " ".join(found.remarks)
    assert "so there is none" in " ".join(look(CHAT_TEMPLATE, TOKENIZERS["adds BOS"]()).remarks)
    assert not look(TEMPLATES["writes BOS"]).remarks


def test_a_bos_written_twice_is_a_warning():
    found = look("{{ bos_token }}{{ bos_token }}" + CHAT_TEMPLATE)
    assert ["twice" in text for text, _ in found.warnings] == [True]


@pytest.mark.parametrize("end", ["<think>\n<think>\n", "<think>\n\n</think>\n<think>"])
def test_a_doubly_opened_think_is_a_warning(end):
    found = look(ending(end))
    assert ["opened twice" in text for text, _ in found.warnings] == [True]


def test_tags_that_servers_hide_are_told():
    assert "<think>, </think>" in " ".join(look(CHAT_TEMPLATE, TOKENIZERS["tags are special tokens"]()).remarks)


@pytest.mark.integration
def test_the_templates_of_known_models():
    """Those that TRL ships: Llama, Gemma, Qwen, DeepSeek, GLM, gpt-oss, Cohere, Phi and others."""
    known = [file for file in files("trl").joinpath("chat_templates").iterdir() if file.name.endswith(".jinja")]
    assert len(known) > 30
    today, tokenizer = date.today(), byte_level()
    for file in known:
        if "training" in file.name:
            continue
        tokenizer.chat_template = file.read_text(encoding="utf-8")
        bind_template(tokenizer, {}, None)
        prompt = render(tokenizer, SAMPLE)
        begun = opened(prompt)
        assert all(message["content"] in prompt for message in SAMPLE), file.name
        assert prompt.count(BOS) <= 1 and not look_at_prompt(tokenizer).warnings, file.name
        assert begun.rstrip().endswith("<think>") and begun.count("<think>") == 1, file.name
        assert not any(f"{today:{form}}" in prompt for form in ("%Y-%m-%d", "%d %b %Y", "%B %d, %Y")), file.name
