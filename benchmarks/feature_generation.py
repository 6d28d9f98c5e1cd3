"""Speed of generating features by continuous batching on the lean forward pass, compared with plain batches.

Three ways of generating are timed in turn in one process, on the same prompts and with the same settings (completions
of at most 104 tokens, 24 rows at a time). Arms:

- ``batches``: the model's own layers, one token per step; finished rows are removed from the batch;
- ``lean``: continuous batching on fused, packed weights;
- ``lean, looked up``: the same, with guesses of the next tokens that are looked up in repetitions of the text.

The prompts are 48 student prompts of the demo's data (completejourney); a quick run uses six prompts of the synthetic
shop. Sampled texts are timed. Greedy texts are compared with those of ``batches`` in fp32: in fp32 they must be equal,
and in bf16 only the share of equal texts is reported.

Columns: ``type`` is the data type, ``prompts per s`` the prompts per second by the median time of five rounds, ``times
batches`` the median of the paired speed-ups over ``batches``, ``greedy texts as in fp32`` the share of equal texts, and
``tokens a step`` the mean number of tokens by which a row advances per step with look-up. A check requires that the
last arm is twice as fast as ``batches``. ``FEATURES_MODEL`` names another model than the default one, such as the
folder ``sft/model`` of a run. The answers of such a model follow the required format, which the default model has not
learnt. With such a model, the bf16 part takes about twelve minutes on two cores, and fp32 takes longer. No full run is
stored.

    [FEATURES_MODEL=FOLDER] python -m benchmarks.feature_generation [--quick]
    [--json benchmarks/results/feature_generation.json]
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.harness import Result, in_turn, median_ratio, run
from benchmarks.measuring import small_model
from benchmarks.text_features import load

ARMS = ("batches", "lean", "lean, looked up")
PROMPTS, QUICK_PROMPTS, NEW, REPEATS = 48, 6, 104, 5
BAR = 2.0
"""Smallest speed-up of the last arm over ``batches`` with which its check holds."""


@contextmanager
def arm(name: str) -> Iterator[None]:
    """Make generation use the method of an arm within the context."""
    from taiji.language import continuous, prefix_support

    with (
        patch.object(continuous, "GUESSED", continuous.GUESSED if name == "lean, looked up" else 0),
        patch.object(
            prefix_support, "lean_model", (lambda model: None) if name == "batches" else prefix_support.lean_model
        ),
    ):
        yield


def texts(lm: Any, prompts: list[str], settings: Any, name: str) -> list[str]:
    """Return the completions of an arm."""
    from taiji.language.generate import generate

    with arm(name):
        return [text for (text,) in generate(lm, prompts, settings=settings)]


def tokens_per_step(lm: Any, prompts: list[str], settings: Any) -> float:
    """Return the mean number of tokens by which a row advances per step, with looked-up guesses."""
    from taiji.language.lean_decode import GroupDecoder

    gained: list[int] = []
    keep = GroupDecoder.keep

    def watched(self: Any, counts: Any) -> None:
        gained.extend(counts)
        keep(self, counts)

    with patch.object(GroupDecoder, "keep", watched):
        texts(lm, prompts, settings, ARMS[-1])
    return statistics.fmean(gained)


def questions(lm: Any, quick: bool) -> list[str]:
    """Return student prompts of different users, ready for a completion to be appended."""
    import polars as pl

    from taiji.data.splits import time_split
    from taiji.pipeline.refreshes import refresh_times
    from taiji.reasoning.prompts import opened, student_prompts
    from taiji.reasoning.settings import PromptSettings

    name = "shop" if quick else "completejourney"
    dataset = load(name, quick)
    assert dataset is not None, "the data come with an installed package"
    due = refresh_times(dataset, time_split(dataset), 5, 1).unique("user", keep="first", maintain_order=True)
    due = due.sample(QUICK_PROMPTS if quick else PROMPTS, seed=0).with_columns(example=pl.col("user").cast(pl.String))
    return [opened(prompt) for prompt in student_prompts(dataset, due, PromptSettings(), lm.tokenizer)["prompt"]]


def measure(quick: bool) -> Result:
    """Time the arms and compare their texts, in both data types."""
    from taiji.language.causal_lm import bfloat16_pays, load_language_model
    from taiji.language.settings import GenerationSettings

    result = Result()
    sampled = GenerationSettings(max_new_tokens=12 if quick else NEW, temperature=0.7, batch_size=4 if quick else 24)
    greedy = sampled.model_copy(update={"temperature": 0.0})
    exact: list[str] = []
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        if name == "bf16" and not bfloat16_pays("cpu"):
            result.rows.append({"type": name, "arm": "left out: this processor has no bfloat16 instructions"})
            continue
        source = os.environ.get("FEATURES_MODEL", "default")
        lm = small_model(dtype) if quick else load_language_model(source, dtype=dtype, device="cpu")
        prompts = questions(lm, quick)
        said = {way: texts(lm, prompts, greedy, way) for way in ARMS}
        exact = exact or said["batches"]
        seconds = in_turn(
            *(partial(texts, lm, prompts, sampled, way) for way in ARMS), repeats=1 if quick else REPEATS, warmup=0
        )
        for way, times in zip(ARMS, seconds):
            result.rows.append(
                {
                    "type": name,
                    "arm": way,
                    "prompts per s": len(prompts) / statistics.median(times),
                    "times batches": median_ratio(seconds[0], times),
                    "greedy texts as in fp32": sum(a == b for a, b in zip(said[way], exact)) / len(exact),
                }
            )
        result.rows[-1]["tokens a step"] = tokens_per_step(lm, prompts, sampled)
        if name == "fp32":
            different = sum(text != own for way in ARMS for text, own in zip(said[way], exact))
            result.at_most("greedy texts that differ from those of batches, fp32", different, 0)
        if not quick:
            result.at_least(f"{name}: times the prompts per second of batches", result.rows[-1]["times batches"], BAR)
        result.so_far()
    return result


if __name__ == "__main__":
    run(measure)
