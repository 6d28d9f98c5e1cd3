"""Stage `selection`."""

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


class Selection(Stage):
    """Stage that scores all rationales by the perplexity of the true answer, calibrates the threshold on held-out
    prompts, and decides which rationales to keep."""

    name = "selection"
    summary = "Keep the rationales that make the true item likely (open-ended rejection sampling; ORFT in the paper)."
    needs = (*PREPARED_STAGES, "rationales")
    settings = (*LANGUAGE, "reasoning.selection")

    def outside(self, config: Config) -> State:
        """Return the state of the language model's folder and of the prompt templates."""
        return named_files(config.language.model, config.reasoning.prompts.templates)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of rationales and the number of tokens read.

        For each prompt, the model reads the prompt once, each rationale with the true answer twice (in full and
        redacted), and the true answer without a rationale once.
        """
        k, taught = config.reasoning.teacher.rationales, taught_prompts(config, log)
        read = taught * (log.student_tokens + 2 * k * log.said_tokens + log.target_tokens)
        return Amount(taught * k, read, language=True, spread=True)

    def run(self, context: Context) -> dict[str, Any]:
        """Score the rationales, calibrate the threshold, and decide which rationales to keep."""
        import polars as pl

        from taiji.core.artifacts import write_parquet
        from taiji.pipeline.run_data import load_examples
        from taiji.pipeline.teaching import ASKED, open_scoring, taught_examples
        from taiji.reasoning.selection import calibrate, select

        config, examples = context.config, taught_examples(context)
        examples = examples.select(name for name in ASKED if name in examples.columns)
        settings = config.reasoning
        written = pl.read_parquet(context.input("rationales") / "rationales.parquet")
        rows = written.join(examples, on="example", how="left", maintain_order="left")
        # The rationales of an example stay together, so that their common prefix is computed once.
        size = config.size.chunk * settings.teacher.rationales
        scored = context.over(
            rows, partial(open_scoring, context, written.columns), "Scoring rationales", "rationales", size=size
        )
        prompts = scored.select("example", kept="prompt_kept", dropped="prompt_dropped").unique(
            "example", keep="first", maintain_order=True
        )
        scored = scored.drop("prompt_kept", "prompt_dropped")
        calibrating = pl.col("example").is_in(load_examples(context, "calibration")["example"].implode())
        calibration = calibrate(scored.filter(calibrating), settings.selection)
        calibration.save(context.folder / "calibration.json")
        verdicts = select(scored.filter(~calibrating), calibration, settings.selection)
        write_parquet(context.folder / "verdicts.parquet", verdicts)
        write_parquet(context.folder / "prompts.parquet", prompts)
        return {"judged": len(verdicts), "kept": int(verdicts["kept"].sum()), "threshold": calibration.threshold}
