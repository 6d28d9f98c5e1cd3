"""Log-probabilities of given completions.

The ids of a completion follow the ids of its prompt (`token_ids.continued`), as in training and generation. Each token
has its character offsets within the completion. The part to average (the answer without its tags, the title, the
category levels) can therefore be chosen by characters, for any tokenizer. Completions of one prompt, and answers after
one rationale, share the computation of their common prefix if the model supports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from taiji.core.errors import InputError
from taiji.core.progress import progress
from taiji.language.causal_lm import LanguageModel
from taiji.language.token_ids import continued

Pair = tuple[list[int], int]
"""Token ids of prompt and completion, and the number of prompt ids."""
TOKENS_A_PAIR = 512
"""A packed pass has at most ``batch_size`` times this number of tokens, where a shared token counts once."""


@dataclass(frozen=True)
class ScoredText:
    """Tokens of a completion.

    Attributes:
        logprobs: (T,) float64, log P(token | prompt and earlier tokens of the completion), natural logarithm. It is 0
            for the first token if the prompt is empty, because this token has no context.
        offsets: (T, 2) int64, the characters [start, end) of each token within the completion.
    """

    logprobs: np.ndarray
    offsets: np.ndarray

    def span(self, start: int, end: int) -> np.ndarray:
        """Return the log-probabilities of the tokens that lie entirely within the characters [start, end).

        A token that also covers characters outside this range is left out, because its log-probability includes them.
        An example is the token `)</` at the end of an answer, because a part of it belongs to the tag. If no token lies
        entirely inside, the overlapping tokens are used.
        """
        first, last = self.offsets[:, 0], self.offsets[:, 1]
        inside = (first >= start) & (last <= end) & (last > first)
        if not inside.any():
            inside = (first < end) & (last > start)
        return self.logprobs[inside]


def perplexity(logprobs: np.ndarray) -> float:
    """Return exp of the negative mean log-probability; NaN without tokens."""
    return float(np.exp(-np.mean(logprobs))) if len(logprobs) else float("nan")


def completion_logprobs(
    lm: LanguageModel,
    prompts: Sequence[str],
    completions: Sequence[str],
    batch_size: int = 8,
    description: str = "Scoring",
) -> list[np.ndarray]:
    """Return the log-probabilities of the tokens of each completion after its prompt; see :func:`score_completions`."""
    return [scored.logprobs for scored in score_completions(lm, prompts, completions, batch_size, description)]


def score_completions(
    lm: LanguageModel,
    prompts: Sequence[str],
    completions: Sequence[str],
    batch_size: int = 8,
    description: str = "Scoring",
) -> list[ScoredText]:
    """Score each completion after its prompt.

    Args:
        lm: the model.
        prompts: (B,) rendered texts.
        completions: (B,) texts that follow them; prompts may repeat.
        batch_size: number of pairs per forward pass. If prefixes are shared, a pass instead has up to ``batch_size``
            times :data:`TOKENS_A_PAIR` tokens. Up to float rounding, neither the batch size nor the order of the pairs
            affects the result.
        description: label of the progress display.

    Returns:
        B scored texts, in order; an empty completion has no tokens.

    Raises:
        TaijiError: a pair is longer than the model's context, or the tokenizer does not provide character offsets.
    """
    tokenised = [continued(lm.tokenizer, p, c) for p, c in zip(prompts, completions, strict=True)]
    context = getattr(lm.model.config, "max_position_embeddings", None)
    for row, text in enumerate(tokenised):
        if context and len(text.ids) > context:
            raise InputError(
                "A prompt with its completion is longer than the model's context.",
                where=f"pair {row}",
                expected=f"at most {context} tokens",
                found=f"{len(text.ids)}",
                fix="lower reasoning.prompts.token_budget",
            )
    pairs = [(text.ids, text.first) for text in tokenised]
    if lm.engine is not None:
        return [ScoredText(values, text.offsets) for values, text in zip(lm.engine.logprobs(pairs), tokenised)]
    batches, score = _plan(lm, pairs, batch_size)
    logprobs: list[np.ndarray] = [np.empty(0)] * len(pairs)
    done = 0
    with progress(description, len(pairs), "texts") as update:
        for batch in batches:
            for i, values in zip(batch, score(lm, [pairs[i] for i in batch])):
                logprobs[i] = values
            done += len(batch)
            update(done)
    return [ScoredText(values, text.offsets) for values, text in zip(logprobs, tokenised)]


def _plan(
    lm: LanguageModel, pairs: list[Pair], batch_size: int
) -> tuple[list[list[int]], Callable[[LanguageModel, list[Pair]], list[np.ndarray]]]:
    """Return batches of pair indices and the function that scores a batch.

    A batch is a packed pass with shared prefixes if the model supports this, otherwise padded pairs of similar length.
    """
    from taiji.language.prefix_forward import shared_batches
    from taiji.language.prefix_support import supports_sharing

    if not supports_sharing(lm.model)[0]:
        order = sorted(range(len(pairs)), key=lambda i: (-len(pairs[i][0]), i))
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)], _score_padded
    return shared_batches([ids for ids, _ in pairs], batch_size * TOKENS_A_PAIR), _score_shared


def _score_shared(lm: LanguageModel, pairs: list[Pair]) -> list[np.ndarray]:
    """Score pairs in one packed pass in which every shared prefix is computed only once."""
    import torch

    from taiji.language.prefix_forward import shared_logprobs

    # The first token of a pair has no context and cannot be scored, so pairs of fewer than two tokens are skipped.
    rows = [row for row, (ids, first) in enumerate(pairs) if len(ids) > max(first, 1)]
    results = [np.zeros(len(ids) - first) for ids, first in pairs]
    if rows:
        with torch.inference_mode():
            scored = shared_logprobs(
                lm.model, [pairs[r][0] for r in rows], [max(pairs[r][1], 1) for r in rows]
            ).logprobs
        for row, values in zip(rows, scored):
            results[row][len(results[row]) - len(values) :] = values.double().cpu().numpy()
    return results


def _score_padded(lm: LanguageModel, pairs: list[Pair]) -> list[np.ndarray]:
    """Score pairs in one left-padded forward pass. Completions are right-aligned, so that only the last positions need
    logits."""
    import torch

    width = max(len(ids) for ids, _ in pairs)
    longest = max(len(ids) - first for ids, first in pairs)
    if longest == 0 or width < 2:
        return [np.zeros(len(ids) - first) for ids, first in pairs]
    tokens = torch.full((len(pairs), width), lm.tokenizer.pad_token_id)
    mask = torch.zeros((len(pairs), width), dtype=torch.long)
    for row, (ids, _) in enumerate(pairs):
        tokens[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    tokens, mask = tokens.to(lm.device), mask.to(lm.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    keep = min(width, longest + 1)
    with torch.inference_mode():
        output = lm.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
        )
        # (B, keep-1): position t's logits score token t + 1.
        scores = torch.log_softmax(output.logits[:, :-1].float(), -1)
        chosen = scores.gather(2, tokens[:, width - keep + 1 :, None])[:, :, 0].double().cpu().numpy()
    results = []
    for row, (ids, first) in enumerate(pairs):
        count = len(ids) - max(first, 1)  # the first token has no context, so it cannot be scored
        values = chosen[row, chosen.shape[1] - count :] if count else np.empty(0)
        results.append(np.concatenate([np.zeros(1), values]) if first == 0 and len(ids) else values)
    return results
