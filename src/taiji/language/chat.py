"""Rendering of chat messages as the text that a model continues."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taiji.core.errors import ConfigError
from taiji.language.causal_lm import LanguageModel
from taiji.language.token_ids import TAGS, opening_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
THINK = "<think>"
_EMPTY_THINK = re.compile(r"<think>\s*</think>\s*$")


def render(
    lm_or_tokenizer: LanguageModel | PreTrainedTokenizerBase, messages: Sequence[Message], prefill: str = ""
) -> str:
    """Return one text: the messages rendered with the chat template, the generation prompt, and the prefill.

    The text already contains every special token; :func:`taiji.language.token_ids.ids_of` gives its ids.

    Args:
        lm_or_tokenizer: a :class:`LanguageModel` or a tokenizer. Without a chat template, the contents are joined by
            blank lines (after the tokenizer's beginning-of-text token, if it adds one).
        messages: ``{"role": "system"|"user"|"assistant", "content": text}``. Special tokens that are spelled out in a
            message are broken up, because they are data and not turn boundaries.
        prefill: the beginning of the answer; see :func:`begun`.

    Raises:
        ConfigError: the chat template cannot render the messages.
    """
    tokenizer = lm_or_tokenizer.tokenizer if isinstance(lm_or_tokenizer, LanguageModel) else lm_or_tokenizer
    if not tokenizer.chat_template:
        return begun(_plain(tokenizer, messages), prefill)
    spelt = _spelt_tokens(tokenizer)
    return begun(_templated(tokenizer, [{**m, "content": _broken_up(m["content"], spelt)} for m in messages]), prefill)


def begun(prompt: str, text: str) -> str:
    """Return a rendered prompt followed by the beginning of its answer.

    `<think>` is never opened twice. If the prompt already ends with an open tag, the tag at the start of the answer is
    dropped. If the answer starts with the tag and the prompt ends with an empty, closed pair, the pair is removed. (The
    templates of hybrid models write such a pair if thinking is off.)
    """
    if text.lstrip().startswith(THINK):
        prompt = _EMPTY_THINK.sub("", prompt)
    return prompt + continuation(prompt, text)


def continuation(prompt: str, text: str) -> str:
    """Return the text to append to a rendered prompt so that it continues with ``text``, without a second `<think>`."""
    if prompt.rstrip().endswith(THINK) and text.lstrip().startswith(THINK):
        return text.lstrip()[len(THINK) :].lstrip("\n")
    return text


def _templated(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    """Render the messages. Several forms are tried, and the first rendered text that contains all contents is returned.

    Some templates have no system role (such as Gemma's) or silently drop the system text. Others expect contents as
    lists of parts.
    """
    from jinja2 import TemplateError

    found = ""
    for form in _forms(messages):
        try:
            text = str(tokenizer.apply_chat_template(form, add_generation_prompt=True, tokenize=False))
        except (TemplateError, TypeError, ValueError) as error:
            found = found or f"{type(error).__name__}: {error}"
            continue
        if all(m["content"].strip() in text for m in messages):
            return text
        found = found or "a rendered prompt without the text of a message"
    raise ConfigError(
        "The model's chat template cannot render a prompt.",
        where=f"chat template of {tokenizer.name_or_path or type(tokenizer).__name__}",
        expected=f"a template for messages of the roles {', '.join(m['role'] for m in messages)}",
        found=found,
        fix="use a model with a chat template for text, or fix its chat_template.jinja",
    )


def _forms(messages: list[Message]) -> Iterator[list[dict[str, Any]]]:
    folded = _without_system(messages)
    for form in (messages, folded) if folded != messages else (messages,):
        yield [dict(m) for m in form]
        yield [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in form]


def _without_system(messages: list[Message]) -> list[Message]:
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [dict(m) for m in messages if m["role"] != "system"]
    if system and rest:
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest


def _plain(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    first = opening_ids(tokenizer)
    start = str(tokenizer.decode(first)) if first else ""
    spelt = _spelt_tokens(tokenizer)
    return start + "".join(_broken_up(m["content"], spelt) + "\n\n" for m in messages)


def _spelt_tokens(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, str]:
    """Return the replacement of each special token that a message could spell out.

    The replacement has an additional space after the first character.
    """
    tokens = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = [t.content for t in tokens if t.special and len(t.content.strip()) > 1 and t.content not in TAGS]
    return {text: f"{text[0]} {text[1:]}" for text in sorted(special, key=len, reverse=True)}


def _broken_up(content: str, spelt: Mapping[str, str]) -> str:
    for text, instead in spelt.items():
        content = content.replace(text, instead)
    return content
