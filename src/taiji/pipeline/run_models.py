"""The language models of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.pipeline.names import model_stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Context


def base_model(config: Config) -> LanguageModel:
    """Return the model before fine-tuning."""
    settings = config.language
    return load_language_model(settings.model, settings.dtype, settings.device)


def load_model(context: Context, which: str) -> LanguageModel:
    """Return the model before fine-tuning (`base`), after it (`sft`), after alignment (`aligned`) or after alignment by a rule."""
    made = model_stage(which)
    if made is None:
        return base_model(context.config)
    settings = context.config.language
    return load_language_model(context.input(made) / "model", settings.dtype, settings.device)
