"""Render chat messages to the text a model continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taiji.language.causal_lm import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
THINK = "<think>"


def render(
    lm_or_tokenizer: LanguageModel | PreTrainedTokenizerBase, messages: Sequence[Message], prefill: str = ""
) -> str:
    """Chat template, generation prompt and the first words of the answer, as one text.

    The text already holds every special token: tokenise it with ``add_special_tokens=False``.

    Args:
        lm_or_tokenizer: a :class:`LanguageModel` or a tokenizer. Without a chat template the contents are joined by
            blank lines (after the tokenizer's beginning-of-text token, if it adds one).
        messages: ``{"role": "system"|"user"|"assistant", "content": text}``.
        prefill: how the answer begins. When the template itself opens a `<think>` (as those of reasoning models do),
            the prefill's own opening tag is left out, so that it is never doubled.
    """
    tokenizer = lm_or_tokenizer.tokenizer if isinstance(lm_or_tokenizer, LanguageModel) else lm_or_tokenizer
    text = _templated(tokenizer, list(messages)) if tokenizer.chat_template else _plain(tokenizer, messages)
    return text + continuation(text, prefill)


def continuation(prompt: str, text: str) -> str:
    """Return what to append to a rendered prompt so that it goes on with ``text``; an open `<think>` is not opened again."""
    if prompt.rstrip().endswith(THINK) and text.lstrip().startswith(THINK):
        return text.lstrip()[len(THINK) :].lstrip("\n")
    return text


def _templated(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except TemplateError:
        # Some templates (Gemma's) know no system role: say it at the head of the first user message instead.
        return str(tokenizer.apply_chat_template(_without_system(messages), add_generation_prompt=True, tokenize=False))


def _without_system(messages: list[Message]) -> list[Message]:
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [dict(m) for m in messages if m["role"] != "system"]
    if system and rest:
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest


def _plain(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    start = str(tokenizer.decode(tokenizer("").input_ids)) if tokenizer("").input_ids else ""
    if tokenizer.eos_token and start.endswith(tokenizer.eos_token) and start != tokenizer.bos_token:
        start = start[: -len(tokenizer.eos_token)]
    return start + "".join(m["content"] + "\n\n" for m in messages)
