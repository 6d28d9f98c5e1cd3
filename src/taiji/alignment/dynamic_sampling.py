"""Dynamic sampling: groups without signal are replaced by groups of other prompts before TRL converts the rollouts to
tensors.

Source: DAPO (arXiv 2503.14476). A group is the rollouts of one prompt. It has no signal if all its advantages are zero,
so it adds nothing to the gradient g_k of any reward k. Replacing such groups multiplies the expectation of every g_k by
the same factor. This changes neither the direction of the update nor the comparison of the rewards by a rule.
``docs/explanation/reward-weights.md`` has the proof. It also explains why the advantage of the weighted sum is the
wrong test of signal if a rule compares the rewards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch import Tensor

from taiji.alignment.hooks import moved_hooks
from taiji.alignment.step_state import Generation, StepState
from taiji.core.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from trl import GRPOTrainer as Base

    from taiji.alignment.trainer_config import ParetoGRPOConfig
else:
    Base = object


@dataclass(frozen=True)
class Rollout:
    """One row of a generation with all of TRL's data about it, so that it can be moved between processes.

    Args:
        example: row of the dataset, with the fields that a ``rollout_func`` added.
        prompt_ids: tokens of the prompt.
        completion_ids: tokens of the completion.
        mask: 1 for tokens of the model, 0 for tokens of an environment; None if all are the model's.
        completion: completion as text or messages.
        logprobs: log-probabilities of the tokens under the sampler; None if the sampler returns none.
        fields: fields that a ``rollout_func`` returned.
        logged: values that reward functions logged for the row, by column.
    """

    example: dict[str, Any]
    prompt_ids: list[int]
    completion_ids: list[int]
    mask: list[int] | None
    completion: Any
    logprobs: list[float] | None
    fields: dict[str, Any]
    logged: dict[str, Any] = field(default_factory=dict)


def rollouts_of(examples: Sequence[dict[str, Any]], generation: Generation) -> list[Rollout]:
    """Split a generation of TRL into one rollout per example.

    Raises:
        ResourceError: the generation has a different form than in the tested versions of TRL.
    """
    if len(generation) != 8:
        raise moved_hooks("_generate to return 8 values", f"{len(generation)} values")
    prompts, completions, masks, texts, logprobs, extra, images, tool_images = generation
    if images is not None or tool_images:
        raise moved_hooks("no images where the prompts have none", "images")
    rows = []
    for n, example in enumerate(examples):
        fields = {
            key: values[n] if isinstance(values, list) else values
            for key, values in extra.items()
            if not isinstance(values, list) or n < len(values)
        }
        rows.append(
            Rollout(
                {**example, **fields},
                prompts[n],
                completions[n],
                None if masks is None else masks[n],
                texts[n],
                None if logprobs is None else logprobs[n],
                fields,
            )
        )
    return rows


def generation_of(rows: Sequence[Rollout]) -> Generation:
    """Combine rows into the form that TRL's ``_generate`` returns."""
    masks = [row.mask for row in rows]
    logprobs = [row.logprobs for row in rows]
    return (
        [row.prompt_ids for row in rows],
        [row.completion_ids for row in rows],
        # A rollout_func may return a mask in some calls and none in others. Without a mask, all tokens are the model's.
        None if all(mask is None for mask in masks) else [row.mask or [1] * len(row.completion_ids) for row in rows],
        [row.completion for row in rows],
        None if any(values is None for values in logprobs) else logprobs,
        {
            key: [row.fields.get(key) for row in rows]
            for key in dict.fromkeys(key for row in rows for key in row.fields)
        },
        None,
        [],
    )


def evenly(groups: int, size: int, processes: int) -> int:
    """Return the smallest number of groups, at least ``groups``, whose rollouts (``size`` each) divide evenly among the
    processes."""
    step = processes // gcd(processes, size)
    return -(-groups // step) * step


@dataclass(frozen=True)
class Drawn:
    """Generation after the replacement of groups without signal.

    Args:
        rows: rollouts of this process.
        rewards: (N, K) rewards over all processes.
        dead: share of groups without signal in the first draw.
        left: share of groups without signal after the last draw.
        extra: number of rollouts drawn beyond the first N, over all processes.
    """

    rows: list[Rollout]
    rewards: Tensor
    dead: float
    left: float
    extra: int


def fill(
    rows: Sequence[Rollout],
    rewards: Tensor,
    *,
    group: int,
    rank: int,
    rounds: int,
    signal: Callable[[Tensor], Tensor],
    draw: Callable[[int], tuple[list[Rollout], Tensor]],
) -> Drawn:
    """Replace groups without signal in at most ``rounds`` draws.

    Groups that still have no signal after the last round are kept. All processes make the same decisions because they
    see the same rewards.

    Args:
        rows: rollouts of this process, which are consecutive rows of the whole batch; the same number on each process.
        rewards: (N, K) rewards of the whole batch.
        group: rollouts per prompt.
        rank: rank of this process.
        rounds: largest number of draws.
        signal: function from rewards (n * group, K) to bool (n,).
        draw: function that draws at least the given number of groups and returns their rollouts and rewards, over all
            processes.
    """
    kept, rewards, first = list(rows), rewards.clone(), rank * len(rows)
    dead = torch.nonzero(~signal(rewards)).flatten().tolist()
    groups, at_first, extra = len(rewards) // group, len(dead), 0
    for _ in range(rounds):
        if not dead:
            break
        others, scores = draw(len(dead))
        extra += len(others)
        alive = torch.nonzero(signal(scores)).flatten().tolist()
        for place, source in zip(dead, alive):
            rewards[place * group : (place + 1) * group] = scores[source * group : (source + 1) * group]
            for n in range(group):
                row = place * group + n - first
                if 0 <= row < len(kept):
                    kept[row] = others[source * group + n]
        dead = dead[len(alive) :]
    return Drawn(kept, rewards, at_first / groups, len(dead) / groups, extra)


class DynamicSampling(Base):
    """Mixin for TRL's ``GRPOTrainer`` that replaces groups without signal before TRL converts the rollouts to
    tensors."""

    args: ParetoGRPOConfig
    accelerator: Accelerator
    num_generations: int
    step_state: StepState
    train_dataset: Any
    _metrics: dict[str, defaultdict[str, list[float]]]

    def _check_dynamic_sampling(self) -> None:
        """Raise :class:`ConfigError` if the dataset has no index, or if rollouts have several turns (tools,
        environments)."""
        if not self.args.dynamic_sampling:
            return
        several_turns = bool(self.tools) or self.environment_factories is not None
        if several_turns or isinstance(self.train_dataset, IterableDataset):
            raise ConfigError(
                "Dynamic sampling needs an indexable dataset and single-turn rollouts, because it draws further prompts.",
                where="dynamic_sampling",
                expected="a train_dataset with an index, and rollouts of a single turn or of a rollout_func",
                found="tools or an environment_factory" if several_turns else "an IterableDataset",
                fix="set dynamic_sampling=0",
            )

    def _generate(self, prompts: list[Any]) -> Generation:
        """Return the generation stored by :meth:`_draw_ahead`, or draw one."""
        drawn = self.step_state.take_generation()
        if drawn is not None:
            return drawn
        generation: Generation = super()._generate(prompts)
        return generation

    def _draw_ahead(
        self,
        inputs: list[dict[str, Any]],
        observe: Callable[[Tensor], None],
        signal: Callable[[Tensor], Tensor],
    ) -> list[dict[str, Any]]:
        """Draw and score a generation in which groups without signal are replaced by groups of other prompts.

        The result is stored until TRL calls :meth:`_generate` and ``_calculate_rewards``, which return it.

        Args:
            inputs: rows of the dataset on this process, each prompt repeated once per rollout.
            observe: function called with the rewards of the first draw (N, K), before any prompts are replaced.
            signal: function from rewards (prompts * group, K) to bool (prompts,), True for groups with signal.

        Returns:
            The rows of the dataset to which the rollouts belong.
        """
        if "image" in inputs[0] or "images" in inputs[0]:
            raise ConfigError(
                "Dynamic sampling does not support images.",
                where="dynamic_sampling",
                expected="prompts of text",
                found="a column 'image' or 'images'",
                fix="set dynamic_sampling=0",
            )
        group, processes, rank = self.num_generations, self.accelerator.num_processes, self.accelerator.process_index
        rows, rewards = self._scored(inputs)
        observe(rewards)
        # A resumed run draws the same prompts, because they depend only on the seed and on the step number, which is in
        # the checkpoint.
        order = np.random.default_rng([self.args.seed, self._step]).permutation(len(self.train_dataset)).tolist()
        taken = 0

        def draw(groups: int) -> tuple[list[Rollout], Tensor]:
            nonlocal taken
            groups = evenly(groups, group, processes)
            chosen = [order[(taken + n) % len(order)] for n in range(groups)]
            taken += groups
            size = groups * group // processes
            found = [self.train_dataset[chosen[n // group]] for n in range(rank * size, (rank + 1) * size)]
            with self._metrics_apart():
                others, scores = self._scored([{key: example[key] for key in inputs[0]} for example in found])
            return gather_object(others), scores

        drawn = fill(
            rows,
            rewards,
            group=group,
            rank=rank,
            rounds=self.args.dynamic_sampling,
            signal=signal,
            draw=draw,
        )
        for column in dict.fromkeys(column for row in drawn.rows for column in row.logged):
            self._pending_extra_logs[column] = [row.logged.get(column) for row in drawn.rows]
        metrics = self._metrics["train"]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        metrics["dynamic_sampling/redrawn"].append(drawn.dead)
        metrics["dynamic_sampling/left"].append(drawn.left)
        metrics["dynamic_sampling/extra_rollouts"].append(float(drawn.extra))
        self.step_state.put_drawn(generation_of(drawn.rows), drawn.rewards)
        return [row.example for row in drawn.rows]

    def _scored(self, inputs: list[dict[str, Any]]) -> tuple[list[Rollout], Tensor]:
        """Draw and score one rollout per input. Return the rollouts of this process and the rewards (n, K) of all
        processes."""
        rows = rollouts_of(inputs, self._generate([example["prompt"] for example in inputs]))
        examples, completions = [row.example for row in rows], [row.completion for row in rows]
        prompts, ids = [example["prompt"] for example in examples], [row.completion_ids for row in rows]
        rewards: Tensor = super()._calculate_rewards(examples, prompts, completions, ids)
        for column, values in self._pending_extra_logs.items():
            for row, value in zip(rows, values):
                row.logged[column] = value
        self._pending_extra_logs.clear()
        return rows, rewards

    @contextmanager
    def _metrics_apart(self) -> Iterator[None]:
        """Keep TRL's metrics unchanged inside the block."""
        metrics = self._metrics
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        try:
            yield
        finally:
            self._metrics = metrics
