"""Scoring k rationales x (target + decoys) as a prefix tree beside scoring every text by itself.

One user prompt, 3 rationales after it, 5 answers after each: 15 texts that share nearly everything. Both sides go through
`score_completions` on the same texts in turn in one process; the unshared side is the padded batches that models get which the
engine does not serve.

    python -m benchmarks.scoring_speed [--quick] [--json benchmarks/results/scoring_speed.json]
"""

from __future__ import annotations

import statistics
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.harness import Result, in_turn, median_ratio, run
from benchmarks.measuring import exact_prompts, peak_memory, small_model

RATIONALES, ANSWERS = 3, 5


def texts(tokenizer: Any, prompt: int, rationale: int, answer: int) -> tuple[list[str], list[str]]:
    """Prompts and completions: every rationale with every answer."""
    (context,) = exact_prompts(tokenizer, [prompt])
    rationales = exact_prompts(tokenizer, [rationale] * RATIONALES, seed=1)
    answers = exact_prompts(tokenizer, [answer] * ANSWERS, seed=2)
    completions = [r + a for r in rationales for a in answers]
    return [context] * len(completions), completions


def case(result: Result, lm: Any, name: str, prompt: int, rationale: int, answer: int, repeats: int) -> None:
    """Time and compare one size."""
    from taiji.language.score import score_completions

    pairs = texts(lm.tokenizer, prompt, rationale, answer)

    def shared() -> list[Any]:
        return score_completions(lm, *pairs)

    def unshared() -> list[Any]:
        with patch("taiji.language.prefix_support.supports_sharing", lambda model: (False, "")):
            return score_completions(lm, *pairs)

    off = max(float(np.abs(a.logprobs - b.logprobs).max()) for a, b in zip(shared(), unshared()))
    slow, fast = in_turn(unshared, shared, repeats=repeats)
    memory = [peak_memory(action)[1] for action in (unshared, shared)]
    count = RATIONALES * ANSWERS
    ideal = count * (prompt + rationale + answer) / (prompt + RATIONALES * rationale + count * answer)
    result.rows.append({"type": name, "prompt": prompt, "rationale": rationale, "answer": answer, "unshared s": statistics.median(slow), "shared s": statistics.median(fast), "ratio": median_ratio(slow, fast), "ideal": ideal, "unshared MB": memory[0], "shared MB": memory[1], "differ by": off})
    if name == "fp32":
        result.at_most(f"difference of log-probabilities, prompt {prompt}, fp32", off, 1e-4)


def measure(quick: bool) -> Result:
    """See the module's docstring."""
    from taiji import progress
    from taiji.language.models import bfloat16_pays, load_language_model

    progress.quiet = True
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
