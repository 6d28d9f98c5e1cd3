"""Data passed between TRL's callbacks.

From the generation to the loss, data are part of TRL's own batch (:class:`RewardColumns`), which TRL shuffles, splits
and buffers. All other data are in one object on the trainer (:class:`StepState`), which is empty between two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.hooks import TESTED
from taiji.core.errors import InputError, ResourceError

Batch = dict[str, Any]
"""TRL's batch: tensors whose first dimension is the rows, scalar tensors, lists and None, by name."""

Generation = tuple[Any, ...]
"""Return value of TRL's ``_generate``: prompt ids, completion ids, masks, completions, log-probabilities, further
fields, images, images of tools."""

ADVANTAGES, PROMPT, SIGNAL, APPLIES = "reward_advantages", "prompt_group", "reward_signal", "reward_applies"


@dataclass(frozen=True)
class RewardColumns:
    """Advantages of one batch, one column per reward. They are computed after the generation, and each loss reads the
    entries of its rows.

    Args:
        advantages: (B, K).
        prompt: (B,) index of each row's prompt within the generation batch of all processes.
        signal: () bool, True if any advantage of the whole generation batch differs from zero.
        applies: (B, K) bool mask of the rewards that apply to each rollout (those that are not NaN).
    """

    advantages: Tensor
    prompt: Tensor
    signal: Tensor
    applies: Tensor

    def put(self, batch: Batch) -> None:
        """Add the columns to TRL's batch."""
        batch |= {
            ADVANTAGES: self.advantages,
            PROMPT: self.prompt,
            SIGNAL: self.signal,
            APPLIES: self.applies,
        }

    @classmethod
    def of(cls, batch: Batch) -> RewardColumns:
        """Return the columns of TRL's batch.

        Raises:
            InputError: the batch lacks one of the columns.
        """
        missing = [name for name in (ADVANTAGES, PROMPT, SIGNAL, APPLIES) if name not in batch]
        if missing:
            raise InputError(
                "A batch has no per-reward advantages.",
                expected="a batch that this trainer generated while training",
                found=f"a batch without {', '.join(missing)}",
                fix="use train(); start from the beginning if the batch comes from a checkpoint of another version",
            )
        return cls(batch[ADVANTAGES], batch[PROMPT], batch[SIGNAL], batch[APPLIES])


class StepState:
    """Data that the trainer's callbacks pass to one another outside TRL's batch.

    ``_generate_and_score_completions`` calls ``_generate`` and ``_calculate_rewards``. The first two pieces are used
    only by dynamic sampling.

    ============  =====================================  ========================================
    piece         put by                                 taken by
    ============  =====================================  ========================================
    generation    ``_generate_and_score_completions``    ``_generate``
    scores        ``_generate_and_score_completions``    ``_calculate_rewards``
    rewards       ``_calculate_rewards``                 ``_generate_and_score_completions``
    accumulation  ``_compute_loss``, first micro-batch   ``_compute_loss``, last micro-batch
    ============  =====================================  ========================================

    A training run starts with an empty state, and the state is empty whenever a checkpoint is written.
    """

    def __init__(self) -> None:
        self._generation: Generation | None = None
        self._scores: Tensor | None = None
        self._rewards: Tensor | None = None
        self._accumulation: AccumulationStep | None = None

    @property
    def contents(self) -> list[str]:
        """Names of the pieces that have not been taken yet."""
        pieces = {
            "generation": self._generation,
            "scores": self._scores,
            "rewards": self._rewards,
            "accumulation": self._accumulation,
        }
        return [name for name, piece in pieces.items() if piece is not None]

    def check_empty(self) -> None:
        """Raise :class:`ResourceError` if anything that was put has not been taken."""
        if self.contents:
            raise _out_of_order("a step ends", "no stored values at the end of a step", " and ".join(self.contents))

    def put_drawn(self, generation: Generation, scores: Tensor) -> None:
        """Store a generation of dynamic sampling, and its rewards (N, K), until TRL requests them."""
        self._generation, self._scores = generation, scores

    def take_generation(self) -> Generation | None:
        """Return the generation that was drawn ahead; None if it still has to be drawn."""
        generation, self._generation = self._generation, None
        return generation

    def take_scores(self) -> Tensor | None:
        """Return the rewards of the generation that was drawn ahead; None if they still have to be computed."""
        scores, self._scores = self._scores, None
        return scores

    def put_rewards(self, rewards: Tensor) -> None:
        """Store the rewards (N, K) of a generation batch over all processes until the generation ends."""
        if self._rewards is not None:
            raise _out_of_order(
                "a batch is scored", "rewards computed once per generation", "a second batch of rewards"
            )
        self._rewards = rewards

    def take_rewards(self) -> Tensor:
        """Return the rewards of the generation that is ending."""
        rewards, self._rewards = self._rewards, None
        if rewards is None:
            raise _out_of_order("a generation ends", "rewards from _calculate_rewards", "none")
        return rewards

    def accumulation(self, start: Callable[[], AccumulationStep]) -> AccumulationStep:
        """Return the current accumulation step, or start one."""
        if self._accumulation is None:
            self._accumulation = start()
        return self._accumulation

    def take_accumulation(self) -> AccumulationStep:
        """Return the completed accumulation step."""
        step, self._accumulation = self._accumulation, None
        if step is None:
            raise _out_of_order("the parameters are updated", "an accumulation step in progress", "none")
        return step


def _out_of_order(moment: str, expected: str, found: str) -> ResourceError:
    return ResourceError(
        "TRL called the hooks of ParetoGRPOTrainer in an unexpected order.",
        where=f"when {moment}",
        expected=expected,
        found=found,
        fix=f'pip install "{TESTED}", and call train() again after an interruption',
    )
