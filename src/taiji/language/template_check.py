"""Check the beginning and the end of a model's prompts, where errors easily go unnoticed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taiji.language.chat import THINK, begun, render
from taiji.language.chat_template import prints_date
from taiji.language.token_ids import TAGS, ids_of, opening_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What next?"}]
SHOWN = 60
"""Number of characters shown from each end of a prompt."""
_EMPTY = re.compile(r"<think>\s*</think>\s*$")
_TWICE = re.compile(r"<think>\s*(</think>)?\s*<think>\s*$")


@dataclass(frozen=True)
class PromptLook:
    """Findings of a prompt check.

    Attributes:
        start: first characters of the prompt.
        end: last characters of the prompt, including the `<think>` that opens the answer.
        remarks: observations that need no action.
        warnings: problems, each with advice on how to fix it.
    """

    start: str
    end: str
    remarks: tuple[str, ...]
    warnings: tuple[tuple[str, str], ...]


def look_at_prompt(tokenizer: PreTrainedTokenizerBase) -> PromptLook:
    """Render a short conversation as a prompt, and check it.

    Args:
        tokenizer: tokenizer with bound template arguments (:func:`taiji.language.causal_lm.load_tokenizer`).
    """
    prompt = render(tokenizer, SAMPLE)
    asked = begun(prompt, THINK)
    remarks = [*_thinking(prompt), *_template(tokenizer, prompt)]
    warnings: list[tuple[str, str]] = []
    begin, ids = tokenizer.bos_token_id, ids_of(tokenizer, asked)
    written = begin is not None and ids[:1] == [begin]
    added = begin is not None and opening_ids(tokenizer)[:1] == [begin]
    if written and ids[1:2] == [begin]:
        warnings.append((f"they begin with {tokenizer.bos_token} twice", "fix the model's chat_template.jinja"))
    elif written and added and tokenizer.chat_template:
        remarks.append(
            f"{tokenizer.bos_token} is written by the template, and the tokenizer would add it again; "
            "here it occurs once"
        )
    elif added and not written:
        remarks.append(
            f"the template writes no {tokenizer.bos_token}, so there is none in the prompts, "
            "although the tokenizer would add one"
        )
    if _TWICE.search(asked):
        fix = "set language.chat_template_kwargs, or fix the model's chat_template.jinja"
        warnings.append(("`<think>` is opened twice", fix))
    return PromptLook(asked[:SHOWN], asked[-SHOWN:], tuple(remarks), tuple(warnings))


def _thinking(prompt: str) -> list[str]:
    if _EMPTY.search(prompt):
        return [
            "the template closes an empty `<think>`, which is removed before an answer that opens its own "
            "(if the template reads enable_thinking, language.chat_template_kwargs can switch thinking on)"
        ]
    return ["the template opens `<think>`, so it is not opened again"] if prompt.rstrip().endswith(THINK) else []


def _template(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    templates = tokenizer.chat_template
    if not templates:
        return ["there is no chat template, so the messages are joined by blank lines"]
    remarks = []
    if prints_date(str(templates)):
        remarks.append("the template prints a date, which is fixed by language.template_date")
    if prompt.find(SAMPLE[0]["content"] + "\n\n" + SAMPLE[1]["content"]) >= 0:
        remarks.append("the template has no system role, so the system text is put before the user's text")
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content in TAGS]
    if special:
        remarks.append(f"{', '.join(special)} are special tokens; servers that omit special tokens do not show them")
    return remarks
