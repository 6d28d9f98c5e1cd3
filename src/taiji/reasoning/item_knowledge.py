"""Item knowledge: a language model writes, once per item, what the title does not say (such as who uses the item, when,
and with what).

The cost grows with the catalogue, not with the number of users, and a new item gets its text when it is listed. The
prompt template is ``templates/<domain>/item.j2``. A text must pass
:class:`taiji.reasoning.knowledge_guard.KnowledgeGuard` before it is used.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from taiji.core.artifacts import value_hash
from taiji.core.errors import InputError
from taiji.data.availability import FROM, UNTIL
from taiji.data.dataset import Dataset
from taiji.data.item_text import DESCRIPTION
from taiji.data.knowledge_rows import COLUMNS, SCHEMA, listed_at
from taiji.language.causal_lm import LanguageModel
from taiji.language.chat import Message, render
from taiji.language.generate import write
from taiji.language.settings import GenerationSettings
from taiji.language.token_ids import ids_of
from taiji.reasoning.endpoint import EndpointClient
from taiji.reasoning.knowledge_guard import KnowledgeGuard
from taiji.reasoning.knowledge_settings import ItemKnowledgeSettings
from taiji.reasoning.prompts import filled, item_line, shorten, template_file
from taiji.reasoning.settings import PromptSettings
from taiji.reasoning.teachers import TAUGHT, tidy, with_prefill

logger = logging.getLogger(__name__)
MORE_ROOM = "raise item_knowledge.max_new_tokens (a local model) or reasoning.endpoint.max_tokens"
FACT_CHARACTERS = 120
"""Longest part of a catalogue field that the prompt shows, in characters; descriptions may have a higher limit."""
UNTOLD = ("item", "item_id", "title", FROM, UNTIL, *COLUMNS)
"""Columns of the item table that the prompt does not list as facts. The item line already contains the title."""
_SENTENCE = re.compile(r"[.!?][\"')]*$")


@dataclass(frozen=True)
class ItemPrompt:
    """Prompt about one item.

    Attributes:
        messages: messages for :func:`taiji.language.chat.render`.
        prefill: beginning of the answer, for a local model.
    """

    messages: list[Message]
    prefill: str


@dataclass(frozen=True)
class Said:
    """Text about one item, with its token counts.

    Attributes:
        text: tidied text; empty if it is unusable.
        ended: ``whole``, ``shortened`` (only complete sentences were kept), or the reason for a missing text (a
            :data:`taiji.reasoning.chat_reply.Ending`).
        prompt_tokens, completion_tokens: numbers of tokens read and written.
    """

    text: str
    ended: str
    prompt_tokens: int
    completion_tokens: int


class ItemWriter(Protocol):
    """Writer of texts about items.

    Attributes:
        version: string that changes whenever the writer's texts may change.
    """

    @property
    def version(self) -> str: ...

    def write(self, prompts: Sequence[ItemPrompt], seed: int) -> list[Said]:
        """Write a text for each prompt."""
        ...


def item_prompt(dataset: Dataset, item: int, settings: PromptSettings) -> ItemPrompt:
    """Return the prompt about an item (dense id): the item's line, then its other catalogue fields as facts."""
    row = dataset.items.row(item, named=True)
    kinds = dataset.items.schema
    longest = {DESCRIPTION: max(FACT_CHARACTERS, settings.description_characters)}
    told = [
        f"{name.replace('_', ' ')}: {shorten(str(value), longest.get(name, FACT_CHARACTERS))}"
        for name, value in row.items()
        if name not in (*UNTOLD, *dataset.levels) and value is not None and not kinds[name].is_nested()
    ]
    path = template_file(dataset.domain, "item", settings.templates)
    texts = filled(path, {"line": item_line(dataset, item, settings.title_characters), "facts": told})
    messages = [{"role": name, "content": texts[name]} for name in ("system", "user") if texts.get(name)]
    return ItemPrompt(messages, texts.get("prefill", ""))


class LocalItemWriter:
    """Writer that uses a language model in this process.

    Args:
        lm: the language model.
        settings: length limits and sampling.
    """

    def __init__(self, lm: LanguageModel, settings: ItemKnowledgeSettings) -> None:
        self.lm = lm
        self.sampling = GenerationSettings(
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            repetition_penalty=settings.repetition_penalty,
            batch_size=settings.batch_size,
            stop=("\n\n",),
        )

    @property
    def version(self) -> str:
        """Version of the model and its sampling."""
        return value_hash([self.lm.version, self.sampling.model_dump(exclude={"batch_size"})])[:16]

    def write(self, prompts: Sequence[ItemPrompt], seed: int) -> list[Said]:
        """See :class:`ItemWriter`."""
        asked = [render(self.lm, prompt.messages, prompt.prefill) for prompt in prompts]
        written = write(self.lm, asked, settings=self.sampling, seed=seed, description="Writing item knowledge")
        found = []
        for prompt, request, (one,) in zip(prompts, asked, written):
            text = with_prefill(prompt.prefill, one.text)
            ended = "whole" if text else "empty"
            if one.cut:
                ended = "shortened" if _SENTENCE.search(text) else "cut"
            tokens = (len(ids_of(self.lm.tokenizer, words)) for words in (request, one.text))
            found.append(Said(text if ended in TAUGHT else "", ended, *tokens))
        return found


class EndpointItemWriter:
    """Writer that uses a model behind an endpoint, with budget, retries and journal; see
    :class:`taiji.reasoning.endpoint.EndpointClient`."""

    def __init__(self, client: EndpointClient) -> None:
        self.client = client

    @property
    def version(self) -> str:
        """Version of the client."""
        return self.client.version

    def write(self, prompts: Sequence[ItemPrompt], seed: int) -> list[Said]:
        """See :class:`ItemWriter`."""
        replies = [row[0] for row in self.client.ask([prompt.messages for prompt in prompts], 1, seed)]
        found = []
        for reply in replies:
            text = tidy(self.client.text(reply)) if self.client.ending(reply) == "whole" else ""
            ended = self.client.ending(reply) if text or self.client.ending(reply) != "whole" else "empty"
            found.append(Said(text, ended, reply.prompt_tokens, reply.completion_tokens))
        return found


def items_to_ask(
    dataset: Dataset, settings: ItemKnowledgeSettings, prompts: PromptSettings, version: str
) -> pl.DataFrame:
    """Return the items to write about, with columns ``item`` (dense id) and ``asked``, the hash of prompt and
    writer."""
    count = dataset.n_items if settings.items is None else min(settings.items, dataset.n_items)
    asked = [
        value_hash([version, prompt.messages, prompt.prefill])[:32]
        for prompt in (item_prompt(dataset, item, prompts) for item in range(count))
    ]
    return pl.DataFrame({"item": np.arange(count), "asked": asked}, schema={"item": pl.Int64, "asked": pl.String})


def asked_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the first row of each prompt (column ``asked``).

    Products that differ only in size or supplier often have the same prompt.
    """
    return rows.unique("asked", keep="first", maintain_order=True)


def for_all(table: pl.DataFrame, items: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Give the text of a prompt to all items with this prompt.

    Args:
        table: rows of :func:`write_knowledge`, one per prompt.
        items: all items from :func:`items_to_ask`.
        dataset: the catalogue.

    Returns:
        one row per item whose prompt has a row in ``table``. Only the first item of a prompt has the numbers of tokens;
        the other items have 0, because their text cost nothing.
    """
    ids = dataset.items.select(pl.col("item").cast(pl.Int64), pl.col("item_id").cast(pl.String))
    every = items.join(ids, on="item", how="left", maintain_order="left")
    found = every.join(table.drop("item_id"), on="asked", how="inner", maintain_order="left")
    first = pl.col("asked").is_first_distinct()
    tokens = [pl.when(first).then(name).otherwise(0).alias(name) for name in ("prompt_tokens", "completion_tokens")]
    return found.with_columns(tokens).select(table.columns)


def write_knowledge(
    dataset: Dataset, items: pl.DataFrame, writer: ItemWriter, prompts: PromptSettings, seed: int
) -> pl.DataFrame:
    """Let a model write about items, and check the texts against the catalogue.

    Args:
        dataset: the catalogue.
        items: items from :func:`items_to_ask`.
        writer: the writer of the texts.
        prompts: limits and templates.
        seed: random seed of the sampling.

    Returns:
        one row per item, with the columns of :data:`taiji.data.knowledge_rows.SCHEMA` except the times.
    """
    numbers = items["item"].to_list()
    said = writer.write([item_prompt(dataset, item, prompts) for item in numbers], seed)
    guard = KnowledgeGuard(dataset)
    flags = [", ".join(guard.flags(item, one.text)) if one.text else "" for item, one in zip(numbers, said)]
    names = dataset.items["item_id"].cast(pl.String).gather(numbers)
    rows = [
        (
            name,
            one.text if one.text and not flagged else None,
            one.text,
            flagged,
            one.ended,
            writer.version,
            asked,
            one.prompt_tokens,
            one.completion_tokens,
        )
        for name, one, flagged, asked in zip(names, said, flags, items["asked"])
    ]
    return pl.DataFrame(rows, schema=dict(list(SCHEMA.items())[:-2]), orient="row")


def with_times(table: pl.DataFrame, dataset: Dataset, delay_s: float) -> pl.DataFrame:
    """Add times to the rows of :func:`write_knowledge`, and sort them in the order of the catalogue.

    ``as_of`` is the time of the item's listing, and ``available_at`` is ``delay_s`` seconds later, both in
    microseconds.
    """
    listed = pl.DataFrame(
        {"item_id": dataset.items["item_id"].cast(pl.String), "as_of": listed_at(dataset)},
        schema={"item_id": pl.String, "as_of": pl.Int64},
    )
    timed = listed.join(table, on="item_id", how="inner", maintain_order="left")
    return timed.with_columns(available_at=pl.col("as_of") + round(delay_s * 1e6)).select(*SCHEMA)


def check_usable(table: pl.DataFrame) -> None:
    """Log the number of unused texts for each reason.

    Raises:
        InputError: no text is usable.
    """
    left_out = table.filter(pl.col("text").is_null())
    if left_out.is_empty():
        return
    reasons = Counter(flagged or ended for flagged, ended in left_out.select("flagged", "ended").iter_rows())
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    if len(left_out) == len(table):
        raise InputError(
            "The model wrote no usable text about any item.",
            where="item_knowledge",
            expected="texts that end before the length limit and do not contradict the catalogue",
            found=said,
            fix=f"read the texts of a few items first (item_knowledge.items=20); {MORE_ROOM}",
        )
    logger.warning("Of the texts about %d items, these are not used, by reason: %s.", len(table), said)


def knowledge_metrics(table: pl.DataFrame, items: int) -> dict[str, float]:
    """Return the coverage and the cost of a table.

    Args:
        table: table with the columns of :data:`taiji.data.knowledge_rows.SCHEMA`.
        items: number of items in the catalogue.

    Returns:
        ``items``: number of items written about; ``coverage``: share of the catalogue with a usable text; ``flagged``
        and ``flagged_<reason>``: share of the texts that are flagged, in total and by reason; ``unfinished``: share of
        the items written about that have no complete text; ``prompt_tokens`` and ``completion_tokens``: tokens per item
        written about.
    """
    asked, said = max(len(table), 1), table.filter(pl.col("said") != "")
    flags = said["flagged"].str.split(", ")
    found = {
        "items": float(len(table)),
        "coverage": float(table["text"].is_not_null().sum()) / max(items, 1),
        "flagged": float((said["flagged"] != "").sum()) / max(len(said), 1),
        "unfinished": float((table["said"] == "").sum()) / asked,
        "prompt_tokens": float(table["prompt_tokens"].sum()) / asked,
        "completion_tokens": float(table["completion_tokens"].sum()) / asked,
    }
    reasons = sorted({reason for row in flags for reason in row if reason})
    return found | {f"flagged_{reason}": float(flags.list.contains(reason).sum()) / len(said) for reason in reasons}
