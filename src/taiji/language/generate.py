"""Sample completions in batches, reproducibly.

Prompts are sorted by length and batched; each is read once for its n samples (`prefix_decode`), and rows that have ended leave
the batch. Each row draws from its own random stream, derived from the seed, the prompt's text
and the sample's number, so the text of a prompt depends neither on the other prompts of the call nor on their order (up
to float rounding).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taiji.core.errors import InputError
from taiji.core.progress import progress
from taiji.language.causal_lm import LanguageModel
from taiji.language.settings import GenerationSettings
from taiji.language.token_ids import ids_of, text_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from taiji.language.logits_processing import Sampling

STOP_TAIL = 24
"""Tokens decoded to look for a stop text; a stop text is far shorter."""


@dataclass(frozen=True)
class Written:
    """A generated text.

    Attributes:
        text: the new text only, without the end-of-text token, up to and with the first stop text.
        cut: the length limit came before an end-of-text token or a stop text.
    """

    text: str
    cut: bool


def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    n: int = 1,
    settings: GenerationSettings | None = None,
    seed: int = 0,
    description: str = "Generating",
) -> list[list[str]]:
    """Return the texts of :func:`write`, where it does not matter how they ended."""
    rows = write(lm, prompts, n=n, settings=settings, seed=seed, description=description)
    return [[written.text for written in row] for row in rows]


def write(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    n: int = 1,
    settings: GenerationSettings | None = None,
    seed: int = 0,
    description: str = "Generating",
) -> list[list[Written]]:
    """Sample ``n`` completions of each rendered prompt (see :func:`taiji.language.chat.render`).

    Args:
        lm: the model.
        prompts: (B,) rendered texts.
        n: samples of each prompt.
        settings: lengths, temperature, stops.
        seed: the same call gives the same texts.
        description: what the progress display says.

    Returns:
        B lists of n texts, in the order of the prompts.

    Raises:
        TaijiError: a prompt with its completion does not fit the model's context.
    """
    from taiji.language.prefix_lora import merged_adapters

    settings = settings or GenerationSettings()
    encoded = [ids_of(lm.tokenizer, prompt) for prompt in prompts]
    _check_context(lm, encoded, settings.max_new_tokens)
    streams = _streams(prompts, n, seed)
    if lm.engine is not None:
        seeds = [[int(stream.integers(2**31)) for stream in row] for row in streams]
        return lm.engine.generate(encoded, seeds, lm.stop_ids, settings)  # type: ignore[no-any-return]
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), i))  # longest first: memory shows at once
    size = max(1, settings.batch_size // n)
    texts: list[list[Written]] = [[] for _ in prompts]
    with merged_adapters(lm.model), progress(description, len(prompts) * n, "texts") as update:
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            rows = _decode_batch(lm, [encoded[i] for i in batch], [streams[i] for i in batch], n, settings)
            for i, row in zip(batch, rows):
                texts[i] = row
            update(min(start + size, len(order)) * n)
    return texts


def _check_context(lm: LanguageModel, encoded: Sequence[list[int]], new: int) -> None:
    context = getattr(lm.model.config, "max_position_embeddings", None)
    for row, ids in enumerate(encoded):
        if not ids:
            raise InputError("A prompt is empty.", where=f"prompt {row}")
        if context and len(ids) + new > context:
            raise InputError(
                "A prompt and its completion do not fit the model's context.",
                where=f"prompt {row}",
                expected=f"at most {context} tokens",
                found=f"{len(ids)} tokens and {new} new ones",
                fix="lower reasoning.prompts.token_budget or the completion's max_new_tokens",
            )


def _streams(prompts: Sequence[str], n: int, seed: int) -> list[list[np.random.Generator]]:
    """One generator per prompt and sample; a prompt that occurs twice gets different samples each time."""
    seen: Counter[str] = Counter()
    streams = []
    for prompt in prompts:
        key = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
        streams.append([np.random.default_rng([seed, key, seen[prompt], sample]) for sample in range(n)])
        seen[prompt] += 1
    return streams


def _decode_batch(
    lm: LanguageModel,
    encoded: list[list[int]],
    streams: list[list[np.random.Generator]],
    n: int,
    settings: GenerationSettings,
) -> list[list[Written]]:
    """Decode n samples of each prompt of one batch; returns the texts as ``generate`` does."""
    import torch

    from taiji.language.logits_processing import Sampling
    from taiji.language.prefix_decode import decode_rows, open_decoder

    sampling = Sampling(
        settings.max_new_tokens,
        settings.temperature,
        settings.top_k,
        settings.top_p,
        repetition_penalty=settings.repetition_penalty,
    )
    stop_ids = set(lm.stop_ids)
    random = [stream for prompt in streams for stream in prompt]
    written: list[list[int]] = [[] for _ in random]
    ended = [False] * len(random)

    def choose(rows: list[int], step: int) -> list[int]:
        return _choose(decoder.logits, [written[r] for r in rows], [random[r] for r in rows], sampling)

    def ends(row: int, token: int) -> bool:
        ended[row] = token in stop_ids
        if not ended[row]:
            written[row].append(token)
            ended[row] = _stopped(lm.tokenizer, written[row], settings.stop)
        return ended[row]

    with torch.inference_mode():
        decoder = open_decoder(lm.model, encoded, n, settings.max_new_tokens)
        decode_rows(decoder, settings.max_new_tokens, choose, ends, compact_below=0.75)
    texts = [
        Written(up_to(text_of(lm.tokenizer, tokens), settings.stop), not whole) for tokens, whole in zip(written, ended)
    ]
    return [texts[start : start + n] for start in range(0, len(texts), n)]


def _choose(
    logits: Tensor, written: Sequence[Sequence[int]], random: list[np.random.Generator], sampling: Sampling
) -> list[int]:
    """One token a row: the likeliest at temperature 0, else by inverse distribution function of the row's next uniform."""
    import torch

    from taiji.language.logits_processing import filtered, ranked

    if sampling.temperature == 0.0:
        return list(filtered(logits, sampling, written).argmax(-1).tolist())
    probabilities, tokens = ranked(logits, sampling, written)
    mass = probabilities.cumsum(-1)
    uniform = torch.tensor([stream.random() for stream in random], dtype=torch.float64, device=logits.device)
    rank = (mass < uniform[:, None] * mass[:, -1:]).sum(-1, keepdim=True)
    return list(tokens.gather(1, rank.clamp(max=mass.shape[1] - 1))[:, 0].tolist())


def _stopped(tokenizer: PreTrainedTokenizerBase, tokens: list[int], stop: Sequence[str]) -> bool:
    if not stop:
        return False
    tail = str(tokenizer.decode(tokens[-STOP_TAIL:]))
    return any(text in tail for text in stop)


def up_to(text: str, stop: Sequence[str]) -> str:
    """Return a text up to and with the first stop text."""
    ends = [text.index(s) + len(s) for s in stop if s in text]
    return text[: min(ends)] if ends else text
