"""Stage `item_knowledge`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage
from taiji.reasoning.knowledge_settings import ItemKnowledgeSettings

if TYPE_CHECKING:
    import polars as pl

    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import Work
    from taiji.reasoning.item_knowledge import ItemWriter

FIELD = "item_knowledge"
"""Name of the ranker's field that compares the user with the texts of this stage."""
COLUMN = "knowledge"
"""Name of the column of the items in which rankers find the texts of this stage."""
PROMPT_TOKENS = 120.0
"""Approximate number of tokens of a prompt about an item."""


class ItemKnowledge(Stage):
    """Stage in which a language model writes, once per item, knowledge beyond the title. The pair field
    ``item_knowledge`` reads these texts."""

    name = "item_knowledge"
    summary = "Write knowledge beyond the title with a language model, once per item."
    needs = ("data",)
    settings = ("language", "reasoning.prompts", "reasoning.endpoint")
    Settings = ItemKnowledgeSettings

    def outside(self, config: Config) -> State:
        """Return the state of the model folder, of the prompt-template files, and of the earlier table."""
        earlier = self.own(config, ItemKnowledgeSettings).earlier
        return named_files(config.language.model, config.reasoning.prompts.templates, earlier)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the tokens of one prompt and text per item."""
        settings = self.own(config, ItemKnowledgeSettings)
        items = log.items if settings.items is None else min(log.items, settings.items)
        written = items * settings.max_new_tokens
        local = settings.kind == "local"
        return Amount(items, items * PROMPT_TOKENS, written, language=True, teacher=not local, spread=local)

    def feeds(self, config: Config) -> tuple[str, ...]:
        """Return the stage ``report`` and, if the ranker reads the texts of the run, the stages that train rankers."""
        given = getattr(config.ranking, "pair_fields", None) or ()
        read = any(entry == FIELD or (isinstance(entry, dict) and _reads_the_run(entry)) for entry in given)
        read = read or names_column(getattr(config.ranking, "texts", ""), COLUMN)
        return ("reward", "evaluation_ranker", "ranking", "report") if read else ("report",)

    def run(self, context: Context) -> dict[str, Any]:
        """Write about the items that are missing from an earlier table, and store one table of all texts."""
        import polars as pl

        from taiji.core.artifacts import write_json, write_parquet
        from taiji.data.knowledge_rows import SCHEMA, read_knowledge
        from taiji.pipeline.run_data import stored
        from taiji.reasoning.item_knowledge import (
            asked_once,
            check_usable,
            for_all,
            items_to_ask,
            knowledge_metrics,
            with_times,
        )
        from taiji.reasoning.knowledge_guard import flagged_stock

        config, dataset = context.config, stored(context)
        settings = self.own(config, ItemKnowledgeSettings)
        items = items_to_ask(dataset, settings, config.reasoning.prompts, _writer(context, settings).version)
        columns = [name for name in SCHEMA if name not in ("as_of", "available_at")]
        missing, parts, reused = asked_once(items), [], 0
        if settings.earlier is not None:
            earlier = read_knowledge(settings.earlier)
            if set(columns) <= set(earlier.columns):
                texts = asked_once(earlier.select(columns))
                parts.append(texts.join(missing, on="asked", how="semi", maintain_order="left"))
                reused = len(items.join(texts, on="asked", how="semi"))
                missing = missing.join(texts, on="asked", how="anti", maintain_order="left")
        if len(missing):
            # A single process manages the budget and the journal of the endpoint; it is limited by the network, not by
            # a core.
            here = settings.kind == "endpoint"
            factory = partial(open_writing, context, settings)
            parts.append(
                context.over(missing, factory, "Writing item knowledge", "items", size=settings.chunk, here=here)
            )
        table = with_times(for_all(flagged_stock(pl.concat(parts)), items, dataset), dataset, settings.delay_s)
        check_usable(table)
        write_parquet(context.folder / "knowledge.parquet", table)
        metrics = knowledge_metrics(table, dataset.n_items)
        write_json(context.folder / "knowledge.json", metrics)
        return {
            "items written about": len(table),
            "different prompts": table["asked"].n_unique(),
            "reused texts": reused,
            "flagged texts": int((table["flagged"] != "").sum()),
            "tokens per item": round(metrics["prompt_tokens"] + metrics["completion_tokens"]),
        }


def names_column(source: str, column: str) -> bool:
    """Return True if a source of texts is the given column of the items, or a template that contains it."""
    return source == column or f"{{{column}}}" in source


def _reads_the_run(entry: dict[str, Any]) -> bool:
    return entry.get("field") == FIELD and not entry.get("table")


def _writer(context: Context, settings: ItemKnowledgeSettings, *, fast: bool = False) -> ItemWriter:
    """Return the writer: the loaded model (with the configured engine if ``fast``), or a client of the endpoint."""
    from taiji.language.vllm_engine import with_engine
    from taiji.pipeline.run_models import base_model
    from taiji.reasoning.endpoint import EndpointClient
    from taiji.reasoning.item_knowledge import EndpointItemWriter, LocalItemWriter

    config = context.config
    if settings.kind == "endpoint":
        # The journal is outside the stage folders, like the teacher's, so that texts that were paid for can be reused.
        client = EndpointClient(config.reasoning.endpoint, settings.temperature, context.run / "teacher")
        return EndpointItemWriter(client)
    lm = base_model(config)
    return LocalItemWriter(with_engine(lm, config.language) if fast else lm, settings)


def open_writing(context: Context, settings: ItemKnowledgeSettings) -> Work:
    """Load the model and return the function that writes about items."""
    from taiji.pipeline.run_data import stored
    from taiji.reasoning.item_knowledge import write_knowledge

    config, dataset, writer = context.config, stored(context), _writer(context, settings, fast=True)

    def work(part: pl.DataFrame) -> pl.DataFrame:
        return write_knowledge(dataset, part, writer, config.reasoning.prompts, config.seed)

    return work
