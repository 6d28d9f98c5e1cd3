"""Reproducible sampling of completions in batches.

Prompts are sorted by length, and each is read only once for its n samples. New prompts take the place of finished
completions (`continuous`). If the lean forward pass (`lean_forward`) does not support the model, finished completions
are only dropped from their batch (`prefix_decode`). Each completion has its own random stream, derived from the seed,
the text of the prompt and the index of the sample. Up to float rounding, a completion therefore does not depend on the
other prompts of the call or on their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taiji.core.errors import InputError
from taiji.core.progress import progress
from taiji.language.causal_lm import LanguageModel
from taiji.language.settings import GenerationSettings
from taiji.language.token_ids import ids_of, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from taiji.language.logits_processing import Sampling

STOP_TAIL = 24
"""Number of last tokens that are decoded to search for a stop text. Stop texts are far shorter than this."""


@dataclass(frozen=True)
class Written:
    """A generated text.

    Attributes:
        text: new text only, without the end-of-text token, up to and including the first stop text.
        cut: True if the length limit was reached before an end-of-text token or a stop text.
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
    """Return only the texts of :func:`write`."""
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
        n: number of samples per prompt.
        settings: length limit, sampling settings, stop texts and batch size.
        seed: random seed; equal calls give equal texts.
        description: label of the progress display.

    Returns:
        B lists of n texts, in the order of the prompts.

    Raises:
        TaijiError: a prompt is empty, or a prompt and its completion exceed the model's context.
    """
    from taiji.language.prefix_lora import merged_adapters

    settings = settings or GenerationSettings()
    encoded = [ids_of(lm.tokenizer, prompt) for prompt in prompts]
    _check_context(lm, encoded, settings.max_new_tokens)
    streams = _streams(prompts, n, seed)
    if lm.engine is not None:
        seeds = [[int(stream.integers(2**31)) for stream in row] for row in streams]
        return lm.engine.generate(encoded, seeds, lm.stop_ids, settings)  # type: ignore[no-any-return]
    order = sorted(
        range(len(prompts)), key=lambda i: (-len(encoded[i]), i)
    )  # longest first, so that a lack of memory shows at the start
    texts: list[list[Written]] = [[] for _ in prompts]
    with merged_adapters(lm.model), progress(description, len(prompts) * n, "texts") as update:
        rows = _complete(lm, [encoded[i] for i in order], [streams[i] for i in order], settings, update)
        for i, row in zip(order, rows):
            texts[i] = row
    return texts


def _complete(
    lm: LanguageModel,
    encoded: list[list[int]],
    streams: list[list[np.random.Generator]],
    settings: GenerationSettings,
    update: Callable[[int], None],
) -> Iterator[list[Written]]:
    """Sample one completion per random stream of each prompt. Yield the texts of each prompt, in the given order."""
    import torch

    from taiji.language.continuous import complete
    from taiji.language.logits_processing import Sampling
    from taiji.language.prefix_support import lean_model

    sampling = Sampling(
        settings.max_new_tokens,
        settings.temperature,
        settings.top_k,
        settings.top_p,
        repetition_penalty=settings.repetition_penalty,
    )

    def stopped(tokens: list[int]) -> bool:
        return _stopped(lm.tokenizer, tokens, settings.stop)

    lean = lean_model(lm.model)
    if lean is not None:
        done = 0

        def finished(count: int) -> None:
            nonlocal done
            done += count
            update(done)

        with torch.inference_mode():
            rows = complete(
                lean, encoded, streams, sampling, settings.batch_size, frozenset(lm.stop_ids), stopped, finished
            )
        for row in rows:
            yield [_text(lm, one.written, one.ended, settings) for one in row]
        return
    size = max(1, settings.batch_size // max(map(len, streams), default=1))
    for start in range(0, len(encoded), size):
        part = slice(start, start + size)
        yield from _decode_batch(lm, encoded[part], streams[part], sampling, settings, stopped)
        update(sum(map(len, streams[: start + size])))


def _check_context(lm: LanguageModel, encoded: Sequence[list[int]], new: int) -> None:
    context = getattr(lm.model.config, "max_position_embeddings", None)
    for row, ids in enumerate(encoded):
        if not ids:
            raise InputError("A prompt is empty.", where=f"prompt {row}")
        if context and len(ids) + new > context:
            raise InputError(
                "A prompt and its completion exceed the model's context.",
                where=f"prompt {row}",
                expected=f"at most {context} tokens",
                found=f"{len(ids)} tokens and {new} new ones",
                fix="lower reasoning.prompts.token_budget or the completion's max_new_tokens",
            )


def _streams(prompts: Sequence[str], n: int, seed: int) -> list[list[np.random.Generator]]:
    """Return one random generator per prompt and sample. Repetitions of a prompt get different generators."""
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
    sampling: Sampling,
    settings: GenerationSettings,
    stopped: Callable[[list[int]], bool],
) -> list[list[Written]]:
    """Decode the samples of each prompt of one batch, one token per step."""
    import torch

    from taiji.language.logits_processing import picked
    from taiji.language.prefix_decode import decode_rows, open_decoder

    stop_ids = set(lm.stop_ids)
    random = [stream for prompt in streams for stream in prompt]
    written: list[list[int]] = [[] for _ in random]
    ended = [False] * len(random)

    def choose(rows: list[int], step: int) -> list[int]:
        numbers = [float(random[r].random()) for r in rows] if sampling.temperature else []
        return picked(decoder.logits, sampling, [written[r] for r in rows], numbers)

    def ends(row: int, token: int) -> bool:
        ended[row] = token in stop_ids
        if not ended[row]:
            written[row].append(token)
            ended[row] = stopped(written[row])
        return ended[row]

    with torch.inference_mode():
        decoder = open_decoder(lm.model, encoded, [len(row) for row in streams], sampling.max_new_tokens)
        decode_rows(decoder, sampling.max_new_tokens, choose, ends, compact_below=0.75)
    texts = iter([_text(lm, tokens, whole, settings) for tokens, whole in zip(written, ended)])
    return [[next(texts) for _ in row] for row in streams]


def _text(lm: LanguageModel, tokens: list[int], ended: bool, settings: GenerationSettings) -> Written:
    return Written(up_to(text_of(lm.tokenizer, tokens), settings.stop), not ended)


def _stopped(tokenizer: PreTrainedTokenizerBase, tokens: list[int], stop: Sequence[str]) -> bool:
    if not stop:
        return False
    tail = str(tokenizer.decode(tokens[-STOP_TAIL:]))
    return any(text in tail for text in stop)


def up_to(text: str, stop: Sequence[str]) -> str:
    """Return a text up to and including the first stop text."""
    ends = [text.index(s) + len(s) for s in stop if s in text]
    return text[: min(ends)] if ends else text
