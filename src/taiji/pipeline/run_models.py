"""The language models of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.language.causal_lm import LanguageModel, load_language_model

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.engine import Context


def base_model(config: Config) -> LanguageModel:
    """The model before fine-tuning."""
    settings = config.language
    return load_language_model(settings.model, settings.dtype, settings.device)


def load_model(context: Context, which: str) -> LanguageModel:
    """The model before fine-tuning (`base`), after it (`sft`), or after alignment (`aligned`)."""
    trained: dict[str, Any] = {"sft": context.run / "sft" / "model", "aligned": context.run / "alignment" / "model"}
    if which not in trained:
        return base_model(context.config)
    return load_language_model(trained[which], context.config.language.dtype, context.config.language.device)
