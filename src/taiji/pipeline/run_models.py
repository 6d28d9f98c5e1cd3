"""Load the language models of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.language.causal_lm import LanguageModel, load_configured
from taiji.pipeline.names import model_stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Context


def base_model(config: Config) -> LanguageModel:
    """Return the model before fine-tuning."""
    return load_configured(config.language)


def load_model(context: Context, which: str) -> LanguageModel:
    """Return the model before fine-tuning (`base`), after it (`sft`), after alignment (`aligned`), or after
    alignment with a given rule."""
    made = model_stage(which)
    if made is None:
        return base_model(context.config)
    return load_configured(context.config.language, context.input(made) / "model")
