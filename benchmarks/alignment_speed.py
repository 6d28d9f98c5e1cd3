"""Speed of our GRPO step, compared with stock TRL's and with the lower bound of the hardware.

Two whole trainers, TRL's `GRPOTrainer` and our `ParetoGRPOTrainer` with fixed weights, are stepped in turn in one
process, on copies of one model and on the same prompt. The model is SmolLM2-135M with LoRA (rank 16 on all linear
layers), in fp32 and, where the processor has bfloat16 instructions, in bf16. Both run without gradient checkpointing,
because TRL is faster without it.

The main case has one prompt of 850 tokens and 8 rollouts of 96 tokens. Column ``type`` is the data type, ``prompt`` the
number of tokens of the prompt, ``group`` the number of rollouts, ``new`` the number of tokens per rollout. ``part``
names what is measured:

- ``rollout``: generation of the rollouts;
- ``update``: forward and backward pass;
- ``step``: the whole step;
- ``update's memory, MB``: growth of the process's memory at its peak during one update, in MiB instead of seconds.

``TRL s`` and ``ours s`` are medians of five steps, in seconds; there is no warm-up step. ``ratio`` is the median of the
five paired ratios of TRL's value to ours; above 1, ours is better. ``floor s`` is a lower bound of the time, which
follows from the size of the model and from the rates at which this machine multiplies matrices and reads memory.
``ours/floor`` is our time divided by this bound. The row ``measured`` reports the rates. It also reports how far the
two trainers differ on the same rollouts: the largest difference of their log-probabilities, and the relative difference
of their gradients.

The rows with ``ideal`` show how the speed-up of the update depends on the lengths. TRL repeats the prompt for every
rollout, and we read it once. So the ideal speed-up is G (P + C) / (P + G C) for a prompt of P tokens and G rollouts of
C tokens. Here the update alone is timed, three times (in bf16 if it is measured). TRL's update is timed with 4
rollouts, and its time is multiplied by G / 4: a larger batch would not fit in 24 GB with a prompt of 2,048 tokens, and
the time is linear in the number of rollouts.

A full run takes some 25 minutes on two cores (estimated from the times in the results).
``benchmarks/results/alignment_speed_amx.json`` has the bf16 part on a processor with AMX units.

    python -m benchmarks.alignment_speed [--quick] [--json benchmarks/results/alignment_speed.json]
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import statistics
import time
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness import Result, median_ratio, run
from benchmarks.measuring import Sizes, exact_prompts, peak_memory, rates, small_model

MEMORY = "update's memory, MB"
"""Name of the row with the peak memory of the update."""


def spread(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Return cheap rewards that differ from rollout to rollout."""
    return [float(np.mean([t % 17 for t in ids])) / 17 for ids in completion_ids]


class Side:
    """One trainer whose steps are timed in parts.

    Args:
        model: model to train, which is changed in place.
        tokenizer: tokenizer of the model.
        ours: True for our trainer, False for TRL's.
        prompt: prompt of every step.
        group: number of rollouts of the prompt.
        new: number of tokens per rollout.
        folder: output folder of the trainer.
        options: further configuration of the trainer.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ours: bool, prompt: str, group: int, new: int, folder: str, **options: Any
    ) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from trl import GRPOConfig, GRPOTrainer

        from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer

        self.prompt, self.group = prompt, group
        options |= {"weighting": "fixed"} if ours else {}
        arguments = (ParetoGRPOConfig if ours else GRPOConfig)(
            output_dir=folder, per_device_train_batch_size=group, num_generations=group, max_completion_length=new, generation_kwargs={"min_new_tokens": new},
            use_cpu=model.device.type == "cpu", bf16=model.dtype == torch.bfloat16, beta=0.0, report_to="none", save_strategy="no", disable_tqdm=True, seed=0, max_steps=1000,
            **{"gradient_checkpointing": False, **options},
        )  # fmt: skip
        self.trainer = (ParetoGRPOTrainer if ours else GRPOTrainer)(
            model=model, reward_funcs=[spread], args=arguments, train_dataset=Dataset.from_dict({"prompt": [prompt] * 8}),
            processing_class=tokenizer, peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = 1
        self.model = self.trainer.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    @classmethod
    def copied(cls, lm: Any, ours: bool, prompt: str, group: int, new: int, folder: str) -> Side:
        """Return a side with copies of the language model. Our side draws tokens as the alignment stage does."""
        options = {"rollout_draw": "uniform"} if ours else {}
        return cls(copy.deepcopy(lm.model), copy.deepcopy(lm.tokenizer), ours, prompt, group, new, folder, **options)

    def ask(self, prompt: str, group: int) -> None:
        """Switch to a different prompt and number of rollouts."""
        self.prompt, self.group, self.trainer.num_generations = prompt, group, group

    def inputs(self) -> dict[str, Any]:
        """Return rollouts with their advantages, in the format that the loss expects."""
        return self.trainer._prepare_inputs([{"prompt": self.prompt}] * self.group)

    def update(self, inputs: dict[str, Any]) -> None:
        """Run the forward and backward pass."""
        self.trainer.accelerator.backward(self.trainer.compute_loss(self.model, inputs))

    def step(self) -> dict[str, float]:
        """Run a whole step, and return the seconds of the rollout, the update and the step."""
        self.trainer._step, rollout = 0, []
        generate = type(self.trainer)._generate_single_turn

        def timed(*arguments: Any, **keywords: Any) -> Any:
            begun = self.now()
            found = generate(self.trainer, *arguments, **keywords)
            rollout.append(self.now() - begun)
            return found

        self.trainer._generate_single_turn = timed
        start = self.now()
        with contextlib.redirect_stdout(io.StringIO()):
            inputs = self.inputs()
        ready = self.now()
        self.update(inputs)
        updated = self.now()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"rollout": sum(rollout), "update": updated - ready, "step": self.now() - start}

    def now(self) -> float:
        """Wait until the model's device has finished its work, and return the time in seconds."""
        import torch

        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def agreement(stock: Side, ours: Side) -> tuple[float, float]:
    """Return the largest difference of the log-probabilities, and the norm of the difference of the gradients divided
    by the norm of TRL's gradient, on the same rollouts."""
    import torch

    inputs = stock.inputs()
    ids, mask = (torch.cat([inputs[f"prompt_{x}"], inputs[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    logprobs, gradients = [], []
    for side in (stock, ours):
        with torch.no_grad():
            logprobs.append(
                side.trainer._get_per_token_logps_and_entropies(
                    side.model, ids, mask, inputs["completion_ids"].size(1)
                )[0]
            )
        side.update(inputs)
        gradients.append(torch.cat([p.grad.flatten().float() for p in side.parameters]))
        side.optimizer.zero_grad()
    return float((logprobs[0] - logprobs[1]).abs().max()), float(
        (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    )


def main_case(result: Result, lm: Any, name: str, prompt: int, group: int, new: int, repeats: int) -> None:
    """Time whole steps in turn, and add the rows of the main case. In fp32, check that both sides agree."""
    rate, sizes = rates(lm.dtype), Sizes.of(lm.model)
    (text,) = exact_prompts(lm.tokenizer, [prompt])
    with TemporaryDirectory() as folder:
        stock, ours = (Side.copied(lm, mine, text, group, new, folder) for mine in (False, True))
        off, error = agreement(stock, ours)
        times: dict[Side, list[dict[str, float]]] = {stock: [], ours: []}
        memory = {}
        for _ in range(repeats):
            for side in (stock, ours):
                times[side].append(side.step())
        for side in (stock, ours):
            inputs = side.inputs()
            memory[side] = peak_memory(lambda side=side, inputs=inputs: side.update(inputs))[1]
            side.optimizer.zero_grad()
    floors = {
        "update": sizes.update_floor(prompt, group, new, rate),
        "rollout": sizes.rollout_floor(prompt, new, rate, lm.dtype.itemsize),
    }
    floors["step"] = floors["update"] + floors["rollout"]
    for part in ("rollout", "update", "step"):
        theirs, mine = ([t[part] for t in times[side]] for side in (stock, ours))
        result.rows.append(
            {
                "type": name,
                "prompt": prompt,
                "group": group,
                "new": new,
                "part": part,
                "TRL s": statistics.median(theirs),
                "ours s": statistics.median(mine),
                "ratio": median_ratio(theirs, mine),
                "floor s": floors[part],
                "ours/floor": statistics.median(mine) / floors[part],
            }
        )
    result.rows.append(
        {
            "type": name,
            "prompt": prompt,
            "group": group,
            "new": new,
            "part": MEMORY,
            "TRL s": memory[stock],
            "ours s": memory[ours],
            "ratio": memory[stock] / memory[ours],
        }
    )
    result.rows.append(
        {
            "type": name,
            "part": f"measured: {rate.flops / 1e9:.0f} GFLOP/s, {rate.bandwidth / 1e9:.0f} GB/s; log-probabilities differ by {off:.1e}, gradients by {error:.1e}",
        }
    )
    if name == "fp32":
        result.at_most("relative error of the gradient, fp32", error, 1e-4)
        result.at_most("difference of the log-probabilities, fp32", off, 1e-4)


def speed_checks(result: Result, name: str) -> None:
    """Add the checks of the main case.

    On processors with AMX units, the lower bound of a bf16 rollout is much lower, because matrix products are almost
    free. The rollout may therefore take 4 times its lower bound there, and 2.5 times otherwise.
    """
    import torch

    amx = name == "bf16" and torch.cpu._is_amx_tile_supported()
    ratio = {row["part"]: row["ratio"] for row in result.rows if row.get("type") == name and "ratio" in row}
    result.at_least(f"update, {name}: times TRL's speed", ratio["update"], 4.0)
    result.at_least(f"whole step, {name}: times TRL's speed", ratio["step"], 3.0)
    result.at_least(f"rollout, {name}: times TRL's speed", ratio["rollout"], 0.95)
    floors = {row["part"]: row["ours/floor"] for row in result.rows if row.get("type") == name and "ours/floor" in row}
    result.at_most(
        f"rollout, {name}{' with AMX' if amx else ''}: times its floor", floors["rollout"], 4.0 if amx else 2.5
    )
    result.at_least(f"update's peak memory, {name}: TRL's over ours", ratio[MEMORY], 1.0)


def curve(
    result: Result, lm: Any, name: str, prompts: tuple[int, ...], groups: tuple[int, ...], new: int, repeats: int
) -> None:
    """Add the speed-up of the update by prompt length and number of rollouts, next to the ideal speed-up."""
    rows = min(4, *groups)
    for prompt in prompts:
        (text,) = exact_prompts(lm.tokenizer, [prompt])
        with TemporaryDirectory() as folder:
            stock = Side.copied(lm, False, text, rows, new, folder)
            sides = {group: Side.copied(lm, True, text, group, new, folder) for group in groups}
            inputs = {group: sides[group].inputs() for group in groups}
            few = {
                key: value[:rows] if getattr(value, "ndim", 0) else value for key, value in inputs[groups[0]].items()
            }
            seconds: dict[int, list[float]] = {group: [] for group in (0, *groups)}
            for _ in range(repeats):
                for group in seconds:
                    start = time.perf_counter()
                    (sides[group] if group else stock).update(inputs[group] if group else few)
                    seconds[group].append(time.perf_counter() - start)
        for group in groups:
            ratio = median_ratio([s * group / rows for s in seconds[0]], seconds[group])
            result.rows.append(
                {
                    "type": name,
                    "prompt": prompt,
                    "group": group,
                    "new": new,
                    "part": "update",
                    "TRL s": statistics.median(seconds[0]) * group / rows,
                    "ours s": statistics.median(seconds[group]),
                    "ratio": ratio,
                    "ideal": group * (prompt + new) / (prompt + group * new),
                }
            )
        result.so_far()


def measure(quick: bool) -> Result:
    """Compare both trainers in fp32 and bf16, and add the speed-up of the update by length."""
    from taiji.language.causal_lm import bfloat16_pays, load_language_model

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    result = Result()
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        if name == "bf16" and not bfloat16_pays("cpu"):
            result.rows.append({"type": name, "part": "left out: this processor has no bfloat16 instructions"})
            continue
        measured = name
        if quick:  # a random model of four small layers shows whether both sides agree; its times mean nothing
            lm = small_model(dtype)
            main_case(result, lm, name, prompt=200, group=4, new=12, repeats=3)
        else:
            lm = load_language_model(dtype=dtype, device="cpu")
            main_case(result, lm, name, prompt=850, group=8, new=96, repeats=5)
            speed_checks(result, name)
        result.so_far()
    if quick:
        curve(result, lm, measured, (100,), (4, 8), 12, 1)
    else:
        curve(result, lm, measured, (128, 512, 850, 2048), (4, 8, 16), 96, 3)
        worst = min(row["ratio"] for row in result.rows if "ideal" in row)
        result.at_least("slowest case of the curve: times TRL's speed", worst, 0.95)
    return result


if __name__ == "__main__":
    run(measure)
