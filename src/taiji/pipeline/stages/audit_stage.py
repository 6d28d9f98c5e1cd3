"""Stage `audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, prompt_share
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Audit(Stage):
    """Stage that audits a sample of the run's rationales with the model that scored them. `reasoning.audit` sets the
    size of the sample."""

    name = "audit"
    summary = "Audit the rationales for leaked answers: guards, decoys, controls, worst examples."
    needs = (*PREPARED_STAGES, "selection")
    settings = (*LANGUAGE, "reasoning.selection", "reasoning.audit", "evaluation.level")
    publish = ("audit.json",)

    def outside(self, config: Config) -> State:
        """Return the state of the model folder and of the prompt-template files."""
        return named_files(config.language.model, config.reasoning.prompts.templates)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the tokens of a sample that is scored with decoys and controls, and of rationales that are written
        without the answer."""
        audit, prompts = config.reasoning.audit, config.size.rationale_prompts * prompt_share(config, log)
        audited, blind = min(audit.controls, prompts), min(audit.blind, prompts)
        read = audited * (log.student_tokens + 2 * (2 + audit.decoys) * log.said_tokens) + blind * log.student_tokens
        return Amount(audited, read, blind * log.rationale_tokens, language=True)

    def run(self, context: Context) -> dict[str, Any]:
        """Audit the rationales."""
        import polars as pl

        from taiji.core.artifacts import write_json
        from taiji.pipeline.run_data import load, load_examples
        from taiji.pipeline.run_models import base_model
        from taiji.reasoning.audit import audit_run

        lm, reasoning = base_model(context.config), context.config.reasoning
        verdicts = pl.read_parquet(context.input("selection") / "verdicts.parquet")
        found = audit_run(
            lm,
            load(context),
            load_examples(context, "rationale"),
            verdicts,
            reasoning.audit,
            reasoning.selection,
            reasoning.prompts,
            context.config.seed,
            level=context.config.evaluation.level,
        )
        write_json(context.folder / "audit.json", found)
        return {"audited": found["rows"], "controls": found["controls"]["own"]["n"], "order": found["order"]["says"]}
