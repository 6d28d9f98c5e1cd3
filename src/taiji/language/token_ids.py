"""Conversion between text and token ids, in one place so that training, scoring and generation use the same ids.

A rendered prompt already contains its special tokens (:func:`taiji.language.chat.render`), so none is added here, even
if the tokenizer would add one. The ids of a completion are appended to those of its prompt: the model generates token
by token, so no token spans the boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taiji.core.errors import ResourceError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Tags of the answer format, which are kept in the text even if a tokenizer treats them as special tokens."""
ANCHORS = ("\n", ".", "a", ">", "\x00")
"""Contexts after which a completion is tokenized if its prompt cannot be used as the context."""


@dataclass(frozen=True)
class Continued:
    """Ids of a prompt followed by those of its completion.

    Attributes:
        ids: all ids.
        first: number of prompt ids. These ids always equal :func:`ids_of` the prompt.
        offsets: (T, 2) int64, the characters [start, end) of each completion token within the completion.
    """

    ids: list[int]
    first: int
    offsets: np.ndarray


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text that already contains its special tokens."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def continued(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> Continued:
    """Return a prompt's ids followed by the ids of its completion.

    If the tokenization of prompt + completion begins with the tokens of the prompt, it is used unchanged. This fails if
    a token spans the boundary, or if the tokenizer puts a space before every text. The completion is then tokenized
    after one of a few short contexts: the first one with which all ids together decode to prompt + completion. If there
    is none, the completion is tokenized without a context.

    Raises:
        ResourceError: the tokenizer does not provide character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ResourceError(
            "The tokenizer does not provide character offsets.",
            expected="a fast tokenizer",
            found=type(tokenizer).__name__,
        )
    before = ids_of(tokenizer, prompt)
    if not completion:
        return Continued(before, len(before), np.zeros((0, 2), dtype=np.int64))
    whole = _behind(tokenizer, prompt, completion, before)
    if whole is not None:
        return Continued([*before, *whole[0]], len(before), whole[1])
    wanted = _shown(tokenizer, before) + completion
    special = [text for text in (tokenizer.eos_token, tokenizer.bos_token) if isinstance(text, str)]
    for anchor in (*special, *ANCHORS):
        found = _behind(tokenizer, anchor, completion, ids_of(tokenizer, anchor))
        if found is not None and _shown(tokenizer, [*before, *found[0]]) == wanted:
            return Continued([*before, *found[0]], len(before), found[1])
    alone = _behind(tokenizer, "", completion, [])
    assert alone is not None  # every text begins with the empty prompt
    return Continued([*before, *alone[0]], len(before), alone[1])


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of generated ids without special tokens; the tags of the answer format are kept."""
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    if not any(text in TAGS for text in special.values()):
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    return str(tokenizer.decode([i for i in ids if special.get(i, TAGS[0]) in TAGS], skip_special_tokens=False))


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that a tokenizer adds before every text."""
    return _framed(tokenizer)[0]


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that a tokenizer adds after every text."""
    return _framed(tokenizer)[1]


def _framed(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    bare, whole = ids_of(tokenizer, "a"), list(tokenizer("a").input_ids)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _behind(
    tokenizer: PreTrainedTokenizerBase, context: str, text: str, before: list[int]
) -> tuple[list[int], np.ndarray] | None:
    """Return ids and offsets of ``text`` after ``context``; None if the ids of the joined text do not begin with
    ``before``, the ids of the context."""
    encoding = tokenizer(context + text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(encoding.input_ids)
    if ids[: len(before)] != before:
        return None
    offsets = np.asarray(encoding.offset_mapping, dtype=np.int64).reshape(-1, 2)[len(before) :] - len(context)
    return ids[len(before) :], np.maximum(offsets, 0)


def _shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
