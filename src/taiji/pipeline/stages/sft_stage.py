"""Stage `sft`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, prompt_share
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class SFT(Stage):
    """Stage that fine-tunes the language model on the kept rationales and the true answers."""

    name = "sft"
    summary = "Fine-tune the language model on the kept rationales."
    needs = (*PREPARED_STAGES, "rationales", "selection")
    settings = (*LANGUAGE, "reasoning.sft")
    distributed = True

    def outside(self, config: Config) -> State:
        """Return the state of the language model's folder and of the prompt templates."""
        return named_files(config.language.model, config.reasoning.prompts.templates)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of kept rationales and of training tokens."""
        reasoning = config.reasoning
        prompts = config.size.rationale_prompts * prompt_share(config, log)
        kept = prompts * reasoning.teacher.rationales * log.kept_share
        trained = kept * reasoning.sft.epochs * (log.student_tokens + log.said_tokens)
        return Amount(kept, trained=trained, language=True, models=1)

    def run(self, context: Context) -> dict[str, Any]:
        """Fine-tune the model."""
        import polars as pl

        from taiji.core.artifacts import write_parquet
        from taiji.pipeline.run_data import load_examples, stored
        from taiji.pipeline.run_models import base_model
        from taiji.reasoning.sft import sft_rows, train_sft

        config, dataset, lm = context.config, stored(context), base_model(context.config)
        kept = pl.read_parquet(context.input("selection") / "verdicts.parquet").filter("kept")
        rows = sft_rows(dataset, load_examples(context, "rationale"), kept, config.reasoning.prompts, lm.tokenizer)
        losses = train_sft(lm, rows, config.reasoning.sft, context.folder / "model", config.seed)
        write_parquet(context.folder / "losses.parquet", losses)
        return {"rows": len(rows), "steps": len(losses)}
