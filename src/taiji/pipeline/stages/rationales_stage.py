"""Stage `rationales`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, taught_prompts
from taiji.pipeline.stage import LANGUAGE, PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Rationales(Stage):
    """Stage in which the teacher, which reads the true next item, writes ``reasoning.teacher.rationales`` rationales
    per prompt."""

    name = "rationales"
    summary = "Write rationales with the teacher, which knows the true next item (RUPR)."
    needs = PREPARED_STAGES
    settings = (*LANGUAGE, "reasoning.teacher", "reasoning.endpoint")

    def outside(self, config: Config) -> State:
        """Return the state of the model folder and of the prompt-template files."""
        return named_files(config.language.model, config.reasoning.prompts.templates)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the tokens of the teacher; the rule writer needs none."""
        teacher, taught = config.reasoning.teacher, taught_prompts(config, log)
        if teacher.kind == "writer":
            return Amount(taught, spread=True)
        return Amount(
            taught,
            taught * log.teacher_tokens,
            taught * teacher.rationales * log.rationale_tokens,
            language=True,
            teacher=True,
            spread=teacher.kind != "endpoint",
        )

    def run(self, context: Context) -> dict[str, Any]:
        """Write the rationales."""
        from taiji.core.artifacts import write_parquet
        from taiji.pipeline.teaching import open_writing, taught_examples
        from taiji.reasoning.teachers import check_endings

        examples = taught_examples(context)
        # A single process manages the budget, rate limit and journal of the endpoint; it is limited by the network, not
        # by a core.
        here = context.config.reasoning.teacher.kind == "endpoint"
        written = context.over(examples, partial(open_writing, context), "Writing rationales", "prompts", here=here)
        write_parquet(context.folder / "rationales.parquet", written)
        return {"prompts": len(examples), "rationales": len(written), "ended": check_endings(written)}
