"""Sampling of several completions per prompt, with the prompt computed once (`prefix_decode`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from taiji.language.lean_decode import LeanDecoder
from taiji.language.logits_processing import Sampling, checked, drawn, filtered, most_likely
from taiji.language.prefix_decode import SharedDecoder, decode_rows, shared_decoder
from taiji.language.prefix_graph import run_ahead
from taiji.language.prefix_lora import merged_adapters

if TYPE_CHECKING:
    from transformers import GenerationConfig


Draw = Literal["noise", "uniform"]
"""Method of drawing a token: with exponential noise for every vocabulary entry (the random stream of `transformers`),
or with one uniform number per row."""

NAMES = frozenset(
    [
        "max_new_tokens",
        "max_length",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "min_new_tokens",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "use_cache",
        "disable_compile",
        "compile_config",
        "transformers_version",
        "_from_model_config",
        "return_dict_in_generate",
        "output_scores",
        "output_logits",
        "output_attentions",
        "output_hidden_states",
        "early_stopping",
        "length_penalty",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "target_lookbehind",
        "assistant_ensemble_weight",
        "max_matching_ngram_size",
        "continuous_batching_config",
        "low_memory",
        "prefill_chunk_size",
        "decoder_start_token_id",
    ]
)
"""Generation settings of `transformers` that are supported here, or that do not affect sampling."""


def sampling_of(config: GenerationConfig) -> tuple[Sampling | None, str]:
    """Convert a generation configuration of `transformers` to sampling settings.

    Returns:
        The sampling settings and an empty text, or None and the unsupported settings as text.
    """
    from transformers import GenerationConfig

    values, usual = config.to_dict(), GenerationConfig._get_default_generation_params()
    known = GenerationConfig().to_dict()
    odd = [
        f"{name}={str(value)[:40]}"
        for name, value in values.items()
        if name in known
        and name not in NAMES
        and value
        and value != usual.get(name, 1 if name == "guidance_scale" else None)
    ]
    if values.get("do_sample") is not True:
        odd.append("do_sample=False")
    if odd or config.max_new_tokens is None:
        return None, ", ".join(odd) or "max_new_tokens=None"
    return Sampling(
        config.max_new_tokens,
        1.0 if config.temperature is None else config.temperature,
        config.top_k or 0,
        1.0 if config.top_p is None else config.top_p,
        config.min_p or 0.0,
        min_new_tokens=config.min_new_tokens or 0,
    ), ""


def generate_shared(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int | Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
    merge: bool = True,
    draw: Draw = "noise",
) -> list[list[int]]:
    """Continue every prompt `n` times.

    Args:
        model: causal LM for which :func:`supports_sharing` is true; it is run in evaluation mode and not changed.
        prompts: token ids without padding.
        n: number of completions per prompt, either one number for all prompts or one for each.
        sampling: sampling settings.
        stop_ids: ids that end a completion. Such an id becomes the completion's last token.
        generator: random generator; None for torch's global one.
        merge: merge LoRA adapters into the weights during generation.
        draw: method of drawing a token from its distribution.

    Returns:
        Token ids of each completion: all completions of the first prompt, then all of the second, and so on.

    Raises:
        ResourceError: the model's logits are NaN.
    """
    from contextlib import nullcontext

    modules = [m for m in model.modules() if m.training]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad(), merged_adapters(model) if merge else nullcontext():
            decoder = shared_decoder(model, prompts, n, sampling.max_new_tokens)
            stops = frozenset(stop_ids)
            # The repetition penalty needs the written tokens on the host.
            if isinstance(decoder, SharedDecoder) and decoder.logits.is_cuda and sampling.repetition_penalty == 1.0:
                return ahead(decoder, sampling, stops, generator, draw)
            return step_by_step(decoder, sampling, stops, generator, draw)
    finally:
        for module in modules:
            module.training = True


def step_by_step(
    decoder: SharedDecoder | LeanDecoder,
    sampling: Sampling,
    stops: frozenset[int],
    generator: torch.Generator | None,
    draw: Draw,
) -> list[list[int]]:
    """Draw the tokens of each row. After each step, the host checks which rows have ended.

    Ended rows are dropped once they are more than 20 % of the rows.
    """
    written: list[list[int]] = [[] for _ in decoder.prompt_of]
    law = _Draws(len(written), sampling, stops, generator, draw)

    def choose(rows: list[int], step: int) -> list[int]:
        tokens = law(decoder.logits, rows, step, [written[r] for r in rows]).tolist()
        return checked(tokens, decoder.logits.shape[-1])

    def ends(row: int, token: int) -> bool:
        written[row].append(token)
        return token in stops

    decode_rows(decoder, sampling.max_new_tokens, choose, ends, compact_below=0.8)
    return written


def ahead(
    decoder: SharedDecoder,
    sampling: Sampling,
    stops: frozenset[int],
    generator: torch.Generator | None,
    draw: Draw,
) -> list[list[int]]:
    """Draw the same tokens as :func:`step_by_step`, but without a check by the host after each step.

    See :func:`~taiji.language.prefix_graph.run_ahead`.
    """
    law = _Draws(len(decoder.prompt_of), sampling, stops, generator, draw)
    written = run_ahead(
        decoder,
        sampling.max_new_tokens,
        lambda rows, step: law(decoder.logits, rows, step),
        sorted(stops),
        generator,
    )
    for row in written:
        checked(row, decoder.logits.shape[-1])
    return written


class _Draws:
    """Function that draws the next token of each running row.

    Args:
        total: initial number of rows.
        sampling, stops, generator, draw: see :func:`generate_shared`.
    """

    def __init__(
        self, total: int, sampling: Sampling, stops: frozenset[int], generator: torch.Generator | None, draw: Draw
    ) -> None:
        self.total, self.sampling, self.stops = total, sampling, sorted(stops)
        self.generator, self.draw = generator, draw

    def __call__(
        self,
        logits: torch.Tensor,
        rows: Sequence[int] | torch.Tensor,
        step: int,
        written: Sequence[Sequence[int]] = (),
    ) -> torch.Tensor:
        """Return token ids (r,); the id is the vocabulary size for a row whose logits are NaN.

        Random numbers are drawn for all rows, including dropped ones. With ``draw="noise"``, the random stream and the
        tokens are thus the same as in `transformers`, which keeps ended rows.
        """
        banned = self.stops if step < self.sampling.min_new_tokens else ()
        scores = filtered(logits, self.sampling, written, banned)
        if self.sampling.temperature == 0.0:
            return most_likely(scores)
        if self.draw == "uniform":
            uniform = torch.rand(self.total, dtype=torch.float64, device=scores.device, generator=self.generator)
            return drawn(scores, uniform[rows])
        # The same computation as torch.multinomial for one draw.
        noise = torch.empty(self.total, scores.shape[-1], device=scores.device).exponential_(
            1, generator=self.generator
        )
        return most_likely(torch.softmax(scores, -1) / noise[rows])
