"""Writers of copy: a language model in this process, a model behind an endpoint, or the example sentences of the
categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from taiji.copywriting.copy_categories import TITLE, CopyPrompt
from taiji.copywriting.settings import CopywritingSettings
from taiji.core.artifacts import value_hash
from taiji.core.errors import ConfigError
from taiji.language.causal_lm import LanguageModel
from taiji.language.chat import render
from taiji.language.generate import write
from taiji.language.settings import GenerationSettings
from taiji.language.token_ids import ids_of
from taiji.reasoning.endpoint import EndpointClient
from taiji.reasoning.item_knowledge import Said
from taiji.reasoning.teachers import tidy

_LABEL = re.compile(r"^\W*(?:copy|notification|push|headline|text|answer|\d+)\s*[:.)]\s+", re.IGNORECASE)
_NO_BLANK = re.compile(r"['’](?:s|ll|re|ve|d|m|t)\b|[.,;:!?…]")
_QUOTES = "\"'“”„‘’«»*_ "


class CopyWriter(Protocol):
    """Writer of copies.

    Attributes:
        version: string that changes whenever the writer's copies may change.
    """

    @property
    def version(self) -> str: ...

    def write(self, prompts: Sequence[CopyPrompt], n: int, seed: int) -> list[list[Said]]:
        """Return the texts written for each prompt, in the order of the prompts.

        A prompt has n texts, or fewer if the writer cannot write more. A text is empty if the output was cut off or
        unusable; ``ended`` then names the reason.
        """
        ...


class LocalCopyWriter:
    """Writer that uses a language model in this process.

    Args:
        lm: the language model.
        settings: lengths and sampling.
    """

    def __init__(self, lm: LanguageModel, settings: CopywritingSettings) -> None:
        self.lm = lm
        self.sampling = GenerationSettings(
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            batch_size=settings.batch_size,
            stop=("\n",),
        )

    @property
    def version(self) -> str:
        """Name of the model, and a hash of the model and its sampling."""
        digest = value_hash([self.lm.version, self.sampling.model_dump(exclude={"batch_size"})])[:16]
        return f"{self.lm.name} {digest}"

    def write(self, prompts: Sequence[CopyPrompt], n: int, seed: int) -> list[list[Said]]:
        """See :class:`CopyWriter`."""
        asked = [render(self.lm, prompt.messages, prompt.prefill) for prompt in prompts]
        rows = write(self.lm, asked, n=n, settings=self.sampling, seed=seed, description="Writing copy")
        found = []
        for prompt, request, row in zip(prompts, asked, rows):
            read = len(ids_of(self.lm.tokenizer, request))
            told = []
            for one in row:
                text = "" if one.cut else copy_text(_continued(prompt.prefill, one.text))
                ended = "cut" if one.cut else "whole" if text else "empty"
                told.append(Said(text, ended, read, len(ids_of(self.lm.tokenizer, one.text))))
            found.append(told)
        return found


class EndpointCopyWriter:
    """Writer that uses a model behind an endpoint, with budget, retries and journal; see
    :class:`taiji.reasoning.endpoint.EndpointClient`."""

    def __init__(self, client: EndpointClient) -> None:
        self.client = client

    @property
    def version(self) -> str:
        """Name and version of the client."""
        return f"{self.client.name} {self.client.version}"

    def write(self, prompts: Sequence[CopyPrompt], n: int, seed: int) -> list[list[Said]]:
        """See :class:`CopyWriter`."""
        rows = self.client.ask([prompt.messages for prompt in prompts], n, seed)
        found = []
        for row in rows:
            told = []
            for reply in row:
                ended = self.client.ending(reply)
                text = copy_text(self.client.text(reply)) if ended == "whole" else ""
                told.append(
                    Said(
                        text,
                        ended if text or ended != "whole" else "empty",
                        reply.prompt_tokens,
                        reply.completion_tokens,
                    )
                )
            found.append(told)
        return found


class RulesCopyWriter:
    """Writer that puts the item's title into the example sentences of the categories, without a language model."""

    version = "rules"

    def write(self, prompts: Sequence[CopyPrompt], n: int, seed: int) -> list[list[Said]]:
        """See :class:`CopyWriter`.

        A hash of seed, item and category chooses n consecutive example sentences, or all if there are fewer.

        Raises:
            ConfigError: a category has no example sentences.
        """
        found = []
        for prompt in prompts:
            lines, title = prompt.category.examples, prompt.evidence.title
            if not lines:
                raise ConfigError(
                    "A category has no example sentences to fill in.",
                    where=str(prompt.category.prompt.with_suffix(".txt")),
                    expected=f"a line with {TITLE} for every copy",
                    fix="write the file, or choose copywriting.kind=local or endpoint",
                )
            start = int(value_hash([seed, prompt.evidence.item_id, prompt.category.name])[:8], 16) % len(lines)
            chosen = [lines[(start + place) % len(lines)] for place in range(min(n, len(lines)))]
            texts = [_filled_in(line, title) if title else "" for line in chosen]
            found.append([Said(text, "whole" if text else "empty", 0, 0) for text in texts])
        return found


def _filled_in(line: str, title: str) -> str:
    """Return an example sentence with the title filled in. After a title that ends with a punctuation mark, the full
    stop is omitted."""
    return (line.replace(f"{TITLE}.", TITLE) if title[-1] in ".!?…" else line).replace(TITLE, title)


def _continued(prefill: str, text: str) -> str:
    """Return the prefill followed by the model's text, without a space before an apostrophe or punctuation mark."""
    return f"{prefill}{text}" if _NO_BLANK.match(text) else f"{prefill} {text}"


def copy_text(text: str) -> str:
    """Return the copy in a model's text: its first line with content, without an introduction, a label or quotation
    marks."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip(_QUOTES).endswith(":"):
        lines = lines[1:]
    without = tidy(text) if "<" in text else next(iter(lines), "")
    return " ".join(_LABEL.sub("", without.strip()).strip(_QUOTES).split())
