"""Time that adaptive reward weights add to a step of GRPO.

A *step* is one whole optimiser step of SmolLM2-135M with LoRA, including rollouts: two prompts of 850 tokens, and for
each prompt 8 rollouts of 96 tokens. In the case ``short``, prompts have 250 tokens, with 4 rollouts of 48 tokens each.
The arms differ only in the number of rewards, K, and in the rule that weights the rewards:

- ``fixed``: constant weights;
- ``popo-light``: weights from the statistics of the rewards;
- ``popo``: POPO's weights, from one gradient per reward (cross-batch estimator, the default);
- ``popo every 2nd step``: the same, but only every second step observes the gradients (``weight_every=2``);
- ``directional``: POPO with the directional estimator, whose cost does not depend on K.

The first four are compared for K = 2, and ``fixed`` and ``directional`` for K = 8. The trainers of a case with equal K
are stepped in turn (A B C …) in one process, on the same prompts. Every rollout has the same length, so that all arms
do equal work.

Columns: ``processor seconds a step`` (CPU time) and ``seconds a step`` (elapsed time) are medians over six steps; for
``popo every 2nd step``, over three pairs of steps, divided by two. ``overhead`` is the median of the paired ratios of
an arm's CPU time to that of ``fixed`` in the same steps, minus 1. CPU time is used because other jobs on the machine
hardly change it. The checks compare the overheads with targets.

The last two rows ask whether cheaper indicators would do. An indicator is the inner product of a reward's gradient with
the sum of all rewards' gradients; POPO sets the weights by these indicators. The rows report the rank correlation
between indicators from all LoRA parameters and indicators from the last layers only, with eight random rewards: the
mean over five random batches, and the smallest value (``worst``).

A full run takes 20 to 50 minutes on two cores (the longer time without bfloat16 instructions).

    python -m benchmarks.alignment_overhead [--quick] [--json benchmarks/results/alignment_overhead.json]
"""

from __future__ import annotations

import contextlib
import gc
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness import Result, median_ratio, run
from benchmarks.measuring import exact_prompts
from taiji.core.process_memory import give_back_memory


@dataclass(frozen=True)
class Case:
    """Trainers that are stepped in turn. A step has two prompts, one for each half of the batch, because the
    cross-batch estimator needs two halves.

    Attributes:
        name: appended to the names of the arms.
        length: tokens per prompt.
        group: rollouts per prompt.
        new: tokens per rollout.
        rewards: number of rewards, K.
        arms: names in ``ARMS``, the first of which is the baseline.
    """

    name: str
    length: int
    group: int
    new: int
    rewards: int
    arms: tuple[str, ...]


ARMS: dict[str, dict[str, Any]] = {
    "fixed": {"weighting": "fixed"},
    "popo-light": {"weighting": "popo-light"},
    "popo": {"weighting": "popo"},
    "popo every 2nd step": {"weighting": "popo", "weight_every": 2},
    "directional": {"weighting": "popo", "gram_estimator": "directional"},
}
CASES = (
    Case("", 850, 8, 96, 2, ("fixed", "popo-light", "popo", "popo every 2nd step")),
    Case("", 850, 8, 96, 8, ("fixed", "directional")),
    Case(", short", 250, 4, 48, 2, ("fixed", "popo", "popo every 2nd step")),
)
"""The case of `benchmarks.alignment_speed` with two numbers of rewards, and a case of short prompts. Only a few
trainers fit in memory at a time."""
BARS = {
    "popo, K = 2": 0.15,
    "popo every 2nd step, K = 2": 0.15,
    "popo-light, K = 2": 0.02,
    "directional, K = 8": 0.30,
    "popo, K = 2, short": 0.30,
}
"""Target of each arm: the largest overhead with which its check holds."""


def reward(number: int) -> Any:
    """Return a cheap reward function whose values differ from rollout to rollout."""

    def function(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(np.mean([(t * (number + 3)) % 17 for t in ids])) / 17 for ids in completion_ids]

    function.__name__ = f"reward{number}"
    return function


class Stepper:
    """Trainer that runs in a thread of its own, and whose optimiser steps are released and timed one by one.

    Args:
        lm: language model; the trainer gets a copy.
        folder: output folder of the trainer.
        case: numbers of tokens, rollouts and rewards.
        steps: largest number of steps.
        options: further configuration of the trainer.
    """

    def __init__(self, lm: Any, folder: str, case: Case, steps: int, **options: Any) -> None:
        import copy

        from datasets import Dataset
        from peft import LoraConfig
        from transformers import TrainerCallback

        from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer

        outer = self
        self.seconds: list[float] = []
        self.elapsed: list[float] = []

        class Turn(TrainerCallback):
            """Callback that pauses the trainer after every step, so that only one trainer runs at a time."""

            def on_step_end(self, *_: Any, **__: Any) -> None:
                outer.give()

        defaults = {
            "per_device_train_batch_size": 2 * case.group,
            "num_generations": case.group,
            "max_completion_length": case.new,
            "rollout_draw": "uniform",  # as in the pipeline's alignment
            "max_steps": steps,
            "learning_rate": 1e-4,
            "beta": 0.0,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "seed": 0,
        }
        self.trainer = ParetoGRPOTrainer(
            model=copy.deepcopy(lm.model),
            reward_funcs=[reward(k) for k in range(case.rewards)],
            args=ParetoGRPOConfig(output_dir=folder, **{**defaults, **options}),
            train_dataset=Dataset.from_dict({"prompt": exact_prompts(lm.tokenizer, [case.length] * 16)}),
            processing_class=copy.deepcopy(lm.tokenizer),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
            ),
            callbacks=[Turn()],
        )
        # No token ends a rollout early, so that every step generates the same number of tokens.
        self.trainer.generation_config.eos_token_id = self.trainer.eos_token_ids = [-1]
        self._start_thread()

    def _start_thread(self) -> None:
        import threading

        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)

        def work() -> None:
            self._go.acquire()
            self.trainer.train()

        threading.Thread(target=work, daemon=True).start()

    def give(self) -> None:
        """End the step that :meth:`step` waits for, and wait until the next one is released. The trainer's thread calls
        this at the end of a step."""
        self._done.release()
        self._go.acquire()

    def step(self) -> None:
        """Run one optimiser step, and store its CPU time and its elapsed time."""
        start, clock = time.process_time(), time.perf_counter()
        self._go.release()
        self._done.acquire()
        self.seconds.append(time.process_time() - start)
        self.elapsed.append(time.perf_counter() - clock)
        give_back_memory()  # every trainer has a thread of its own, and together they would keep more than 24 GB


def measure(quick: bool) -> Result:
    """Step the trainers of each case in turn, and add the rows and checks."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    result = Result()
    repeats = 2 if quick else 6
    lm = _model(quick)
    for case in CASES:
        sizes = replace(case, length=40, new=4) if quick else case
        with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            steppers = {
                name: Stepper(lm, f"{folder}/{number}", sizes, repeats + 3, **ARMS[name])
                for number, name in enumerate(case.arms)
            }
            for _ in range(repeats + 1):  # the first round warms up
                for stepper in steppers.values():
                    stepper.step()
        baseline = steppers["fixed"]
        for name, stepper in steppers.items():
            every = ARMS[name].get("weight_every", 1)
            seconds = per_step(stepper.seconds[1:], every)
            overhead = median_ratio(seconds, per_step(baseline.seconds[1:], every)) - 1
            label = f"{name}, K = {case.rewards}{case.name}"
            result.rows.append(
                {
                    "arm": label,
                    "processor seconds a step": float(np.median(seconds)),
                    "seconds a step": float(np.median(per_step(stepper.elapsed[1:], every))),
                    "overhead": overhead,
                }
            )
            if label in BARS and not quick:
                result.at_most(f"overhead of {label} on the whole step", overhead, BARS[label])
        if quick:
            result.at_least(
                f"every arm makes its steps, K = {case.rewards}{case.name}",
                min(len(s.seconds) for s in steppers.values()),
                repeats + 1,
            )
        if case.rewards == 8:
            subset(result, steppers["directional"].trainer, lm)
        result.so_far()
        steppers.clear()
        gc.collect()
    return result


def per_step(seconds: Sequence[float], every: int) -> list[float]:
    """Return the mean of each ``every`` consecutive steps."""
    return np.asarray(seconds).reshape(-1, every).mean(1).tolist()


def subset(result: Result, trainer: Any, lm: Any) -> None:
    """Add the rank correlations between indicators from all LoRA parameters and from those of the last layers only."""
    import torch

    model = trainer.model
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    layers = lm.model.config.num_hidden_layers
    agreement: dict[str, list[float]] = {"last quarter of the layers": [], "last layer": []}
    generator = torch.Generator().manual_seed(0)
    ids = lm.tokenizer(exact_prompts(lm.tokenizer, [48]), return_tensors="pt")["input_ids"].repeat(6, 1)
    for _ in range(5):
        tail = torch.randint(10, lm.model.config.vocab_size, (6, 8), generator=generator)
        logs = trainer._get_per_token_logps_and_entropies(
            model, torch.cat([ids, tail], 1), torch.ones(6, ids.size(1) + 8, dtype=torch.long), 8
        )[0]
        advantage = torch.randn(6, 8, generator=generator)
        gradients = [
            torch.autograd.grad((advantage[:, k, None] * logs).mean(), parameters, retain_graph=True) for k in range(8)
        ]
        full = _indicators(gradients, range(len(names)))
        for label, first in (("last quarter of the layers", layers - max(layers // 4, 1)), ("last layer", layers - 1)):
            kept = [i for i, name in enumerate(names) if int(name.split(".layers.")[1].split(".")[0]) >= first]
            part = _indicators(gradients, kept)
            ranks = np.corrcoef(full.argsort().argsort(), part.argsort().argsort())[0, 1]
            agreement[label].append(float(ranks))
    for label, values in agreement.items():
        result.rows.append(
            {
                "arm": f"indicators from the {label}",
                "rank agreement with all (mean of 5)": float(np.mean(values)),
                "worst": float(np.min(values)),
            }
        )


def _indicators(gradients: list[Any], kept: Any) -> np.ndarray:
    import torch

    flat = torch.stack([torch.cat([g[i].reshape(-1) for i in kept]) for g in gradients])
    return np.asarray((flat @ flat.sum(0)).detach().numpy())


def _model(quick: bool) -> Any:
    from taiji.language.causal_lm import LanguageModel, load_language_model
    from taiji.language.tiny import tiny_causal_lm

    return LanguageModel(*tiny_causal_lm(hidden=32), "tiny") if quick else load_language_model("default")


if __name__ == "__main__":
    run(measure)
