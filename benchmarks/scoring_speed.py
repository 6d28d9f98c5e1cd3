"""How much faster are rationales and answers scored as a prefix tree than as separate texts?

One user prompt is followed by 3 rationales, and each of these by 5 answers (the target and decoys): 15 texts that share
nearly all of their tokens. The *shared* side computes common prefixes once. The *unshared* side scores padded batches
of whole texts, as is done for models that do not support sharing. Both call `score_completions` on the same texts, in
turn in one process, with the default model (SmolLM2-135M) on the CPU.

Rows: one per data ``type`` and prompt length, with the tokens of ``prompt``, ``rationale`` and ``answer``. ``unshared
s`` and ``shared s`` are median seconds, ``ratio`` is the median of the first over the second, ``ideal`` the ratio of
the tokens that are processed. ``MB`` columns are the growth of memory at its peak, in MiB. ``differ by`` and ``99 %``
are the largest difference of log-probabilities between both sides, and its 99 % quantile over tokens. In fp32, ``shared
from float64`` and ``unshared from float64`` are the errors of both sides against float64, in the text that differs
most.

Checks in fp32: 99 % of the tokens differ by at most 1e-4, and the error of the shared side is at most 1e-4 or three
times that of the unshared one, whichever is larger. Full runs also check that sharing is at least 2.5 times as fast at
850 tokens, and never less than .95 times as fast. bf16 is measured on machines where it is faster than fp32. Quick runs
use a small random model.

    python -m benchmarks.scoring_speed [--quick] [--json benchmarks/results/scoring_speed.json]
"""

from __future__ import annotations

import copy
import statistics
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.harness import Result, in_turn, median_ratio, run
from benchmarks.measuring import exact_prompts, peak_memory, small_model

RATIONALES, ANSWERS = 3, 5


def texts(tokenizer: Any, prompt: int, rationale: int, answer: int) -> tuple[list[str], list[str]]:
    """Return prompts and completions of this many tokens. The completions are all pairs of a rationale and an
    answer."""
    (context,) = exact_prompts(tokenizer, [prompt])
    rationales = exact_prompts(tokenizer, [rationale] * RATIONALES, seed=1)
    answers = exact_prompts(tokenizer, [answer] * ANSWERS, seed=2)
    completions = [r + a for r in rationales for a in answers]
    return [context] * len(completions), completions


def case(result: Result, lm: Any, name: str, prompt: int, rationale: int, answer: int, repeats: int) -> None:
    """Time and compare both sides for one size."""
    from taiji.language.score import score_completions

    pairs = texts(lm.tokenizer, prompt, rationale, answer)

    def shared() -> list[Any]:
        return score_completions(lm, *pairs)

    def unshared() -> list[Any]:
        with patch("taiji.language.prefix_support.supports_sharing", lambda model: (False, "")):
            return score_completions(lm, *pairs)

    mine, theirs = shared(), unshared()
    differences = [np.abs(a.logprobs - b.logprobs) for a, b in zip(mine, theirs)]
    off, typical = float(max(d.max() for d in differences)), float(np.quantile(np.concatenate(differences), 0.99))
    slow, fast = in_turn(unshared, shared, repeats=repeats)
    memory = [peak_memory(action)[1] for action in (unshared, shared)]
    count = RATIONALES * ANSWERS
    ideal = count * (prompt + rationale + answer) / (prompt + RATIONALES * rationale + count * answer)
    result.rows.append(
        {
            "type": name,
            "prompt": prompt,
            "rationale": rationale,
            "answer": answer,
            "unshared s": statistics.median(slow),
            "shared s": statistics.median(fast),
            "ratio": median_ratio(slow, fast),
            "ideal": ideal,
            "unshared MB": memory[0],
            "shared MB": memory[1],
            "differ by": off,
            "99 %": typical,
        }
    )
    if name == "fp32":
        result.at_most(f"difference of log-probabilities, prompt {prompt}, fp32, 99 % of the tokens", typical, 1e-4)
        place = int(np.argmax([d.max() for d in differences]))
        exact = in_double(lm, pairs[0][place], pairs[1][place])
        errors = [float(np.abs(side[place].logprobs - exact).max()) for side in (mine, theirs)]
        result.rows[-1].update({"shared from float64": errors[0], "unshared from float64": errors[1]})
        result.at_most(
            f"prompt {prompt}: shared error from float64 in the text that differs most",
            errors[0],
            max(1e-4, 3 * errors[1]),
        )


def in_double(lm: Any, prompt: str, completion: str) -> np.ndarray:
    """Return the log-probabilities of the completion's tokens in float64.

    For some tokens of random words, any two orders of summation in fp32 differ by more than 1e-4. This reference shows
    which of two results is wrong.
    """
    import torch

    begun = len(lm.tokenizer(prompt, add_special_tokens=False).input_ids)
    ids = lm.tokenizer(prompt + completion, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = copy.deepcopy(lm.model).double()(ids).logits[0]
    return np.asarray(logits.log_softmax(-1)[begun - 1 : -1].gather(1, ids[0, begun:, None])[:, 0].numpy())


def measure(quick: bool) -> Result:
    """Time all sizes in both data types."""
    from taiji.core import progress
    from taiji.language.causal_lm import bfloat16_pays, load_language_model

    progress.silence(True)
    result = Result()
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        if name == "bf16" and not bfloat16_pays("cpu"):
            continue
        if quick:
            case(result, small_model(dtype), name, 150, 20, 10, 3)
            continue
        lm = load_language_model(dtype=dtype, device="cpu")
        for prompt in (128, 512, 850):
            case(result, lm, name, prompt, 80, 24, 5)
        ratio = result.rows[-1]["ratio"]
        result.at_least(f"scoring 3 rationales x 5 answers, prompt 850, {name}: times the unshared speed", ratio, 2.5)
    if not quick:
        result.at_least("slowest case: times the unshared speed", min(row["ratio"] for row in result.rows), 0.95)
    return result


if __name__ == "__main__":
    run(measure)
