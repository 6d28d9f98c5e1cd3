"""Stage `answers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, tested_prompts
from taiji.pipeline.names import MODELS
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Answers(Stage):
    """Stage in which every model answers the test prompts."""

    name = "answers"
    summary = "Generate answers to the test prompts with the base, fine-tuned and aligned models."
    needs = (*PREPARED_STAGES, "sft", "alignment")
    settings = ("generation", *LANGUAGE)

    def outside(self, config: Config) -> State:
        """Return the state of the model folder and of the prompt-template files."""
        return named_files(config.language.model, config.reasoning.prompts.templates)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the tokens of the prompts and answers of all models."""
        rows = len(MODELS) * tested_prompts(config, log)
        return Amount(rows, rows * log.student_tokens, rows * log.answer_tokens, language=True, spread=True)

    def run(self, context: Context) -> dict[str, Any]:
        """Generate the answers."""
        from taiji.core.artifacts import write_parquet
        from taiji.pipeline.completions import complete
        from taiji.pipeline.run_data import load_examples

        test, cut = load_examples(context, "test"), {}
        for which in MODELS:
            answers = complete(context, test, which)
            write_parquet(context.folder / f"{which}.parquet", answers)
            cut[which] = int(answers["cut"].sum())
        return {"prompts": len(test), "models": list(MODELS), "cut": cut}
