"""Teachers: writers of rationales (RUPR, Taiji §2).

A teacher writes only the rationale. The answer is appended afterwards from the true item, so a rationale cannot end in
a wrong or malformed answer. A teacher that sees the answer explains it; a model that does not see it has to predict.
The audit's blind gap compares the teacher's rationales with those that the student writes without the answer.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.language.chat import render
from taiji.language.settings import GenerationSettings
from taiji.reasoning.answers import clean
from taiji.reasoning.prompts import teacher_prompt, true_items
from taiji.reasoning.settings import PromptSettings, TeacherSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from taiji.language.causal_lm import LanguageModel
    from taiji.language.generate import Written

SCHEMA = {"example": pl.String, "sample": pl.UInt8, "rationale": pl.String, "teacher": pl.String, "ended": pl.String}
TAUGHT = ("whole", "shortened")
"""Endings of usable rationales. Rationales with other endings are not used."""
MORE_ROOM = "raise reasoning.teacher.max_new_tokens (a local model) or reasoning.endpoint.max_tokens and ask_again (an endpoint)"
logger = logging.getLogger(__name__)
_SENTENCE_END = re.compile(r"[.!?][\"')]*$")
_STOP = ("</think>", "<answer>", "\n\n")


class Teacher(Protocol):
    """Writer of rationales.

    Attributes:
        name: name of the teacher, stored with each rationale.
        version: string that changes whenever the teacher's texts may change.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def write(self, dataset: Dataset, examples: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
        """Write ``k`` rationales for each example.

        Args:
            dataset: the log.
            examples: ``example``, ``user``, ``as_of``, ``target`` and, where answers are sets, ``targets``.
            k: rationales per example.
            seed: random seed; the same call gives the same texts if the teacher supports seeds.

        Returns:
            ``example``, ``sample`` (0…k-1), ``rationale`` (one line, possibly empty), ``teacher``, ``ended``; k rows
            per example, in the order of the examples. ``ended`` is ``whole``, ``shortened`` (only complete sentences
            were kept), or the reason for a missing rationale (a :data:`taiji.reasoning.chat_reply.Ending`).
        """
        ...


class LocalTeacher:
    """Teacher that uses a language model in this process.

    Args:
        lm: the language model.
        settings: length limits, sampling, and whether the answer is in view.
        prompts: content of the prompts.
    """

    def __init__(self, lm: LanguageModel, settings: TeacherSettings, prompts: PromptSettings) -> None:
        self.lm, self.settings, self.prompts = lm, settings, prompts
        self.name = f"local:{Path(lm.name).name}"

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.lm.version

    def write(self, dataset: Dataset, examples: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
        """See :class:`Teacher`."""
        from taiji.language.generate import write

        requests = teacher_requests(dataset, examples, self.settings, self.prompts, self.lm.tokenizer)
        sampling = GenerationSettings(
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            repetition_penalty=self.settings.repetition_penalty,
            batch_size=self.settings.batch_size,
            stop=_STOP,
        )
        written = write(
            self.lm,
            [render(self.lm, m, p) for m, p in requests],
            n=k,
            settings=sampling,
            seed=seed,
            description="Writing rationales",
        )
        rows = [[self._rationale(prefill, text) for text in row] for (_, prefill), row in zip(requests, written)]
        texts, endings = ([[pair[part] for pair in row] for row in rows] for part in (0, 1))
        return rationale_frame(examples["example"].to_list(), texts, self.name, endings)

    def _rationale(self, prefill: str, written: Written) -> tuple[str, str]:
        """Return the rationale in a generated text, and its ending.

        If the length limit cut the text, the rationale is empty, unless the setting ``cut`` is ``shorten`` and a
        complete sentence is left.
        """
        rationale = with_prefill(prefill, written.text)
        if not written.cut:
            return rationale, "whole" if rationale else "empty"
        if self.settings.cut == "shorten" and _SENTENCE_END.search(rationale):
            return rationale, "shortened"
        return "", "cut"


def teacher_requests(
    dataset: Dataset,
    examples: pl.DataFrame,
    settings: TeacherSettings,
    prompts: PromptSettings,
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[list[dict[str, str]], str]]:
    """Return (messages, prefill) of the teacher's prompt for each example, in order."""
    requests = []
    for (user, as_of), items in zip(examples.select("user", "as_of").iter_rows(), true_items(examples, prompts)):
        prompt = teacher_prompt(dataset, user, as_of, prompts, tokenizer, items if settings.answer_in_view else None)
        requests.append((prompt.messages, prompt.prefill))
    return requests


def rationale_frame(
    examples: Sequence[str],
    texts: Sequence[Sequence[str]],
    teacher: str,
    endings: Sequence[Sequence[str]] | None = None,
) -> pl.DataFrame:
    """Return the rows of :meth:`Teacher.write`, from the texts and endings of each example. Without endings, all texts
    count as ``whole``."""
    rows = [
        (example, sample, text, teacher, ended)
        for example, row, ends in zip(examples, texts, endings or [["whole"] * len(row) for row in texts], strict=True)
        for sample, (text, ended) in enumerate(zip(row, ends, strict=True))
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def check_endings(rationales: pl.DataFrame) -> dict[str, int]:
    """Return the number of rationales by ending, and log the numbers of unusable ones.

    Args:
        rationales: rationales from :meth:`Teacher.write`.

    Raises:
        InputError: no rationale is usable.
    """
    counts = dict(sorted(Counter(rationales["ended"]).items()))
    left_out = {ending: count for ending, count in counts.items() if ending not in TAUGHT}
    if not left_out:
        return counts
    said = ", ".join(f"{count} {ending}" for ending, count in left_out.items())
    if sum(left_out.values()) == len(rationales):
        raise InputError(
            "The teacher completed no rationale.",
            where="rationales",
            expected="texts that end before the length limit",
            found=said,
            fix=MORE_ROOM,
        )
    logger.warning(
        "Of %d rationales, these are not used: %s. To reduce their number: %s.", len(rationales), said, MORE_ROOM
    )
    return counts


def with_prefill(prefill: str, text: str) -> str:
    """Return a prefill with its continuation, tidied; empty if the continuation does not contain a single letter."""
    if not any(map(str.isalpha, text)):
        return ""
    return tidy(f"{prefill} {text}" if prefill else text)


def tidy(text: str) -> str:
    """Return the rationale in a model's text: the part inside `<think>` or before the answer, as one line of complete
    sentences.

    A last sentence without final punctuation is dropped, unless it is the only one. The text ends before the first
    repeated sentence, because small models loop.
    """
    text = re.split(r"<\s*+/\s*+think\s*+>|<\s*+answer\s*+>", text, maxsplit=1, flags=re.IGNORECASE)[0]
    # Turn lists into running text: "buys : - A - B" becomes "buys: A, B".
    text = re.sub(r"(:?)(?<!\s)\s++[-*•]\s++(?=\w)", lambda m: ": " if m.group(1) else ", ", " " + clean(text))
    text = re.sub(r"(?<!\s)\s++([,.;:!?])(?=\s|$)", r"\1", text).strip(" ,")
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if s]
    if len(sentences) > 1 and not _SENTENCE_END.search(sentences[-1]):
        sentences.pop()
    seen: set[str] = set()
    kept = []
    for sentence in sentences:
        if sentence.casefold() in seen:
            break
        seen.add(sentence.casefold())
        kept.append(sentence)
    return " ".join(kept)
