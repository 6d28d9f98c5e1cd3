"""Data passed between TRL's callbacks.

From the generation to the loss, data are in TRL's own batch (:class:`RewardColumns`), which TRL shuffles, splits and buffers. All other data are in
one object on the trainer (:class:`StepState`), which is empty between two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from taiji.alignment.accumulation import AccumulationStep
from taiji.core.errors import InputError, ResourceError

Batch = dict[str, Any]
"""TRL's batch: tensors whose first dimension is the rows, scalar tensors, lists and None, by name."""

Generation = tuple[Any, ...]
"""Return value of TRL's ``_generate``: prompt ids, completion ids, masks, completions, log-probabilities, further fields, images (twice)."""

ADVANTAGES, PROMPT, SIGNAL, APPLIES = "reward_advantages", "prompt_group", "reward_signal", "reward_applies"


@dataclass(frozen=True)
class RewardColumns:
    """Advantages of one batch, a column per reward; made at the generation, read by each loss on its rows.

    Args:
        advantages: (B, K).
        prompt: (B,) number of each row's prompt in the generation batch of all processes.
        signal: () bool; True if any advantage of the whole generation batch differs from zero.
        applies: (B, K) bool mask of each rollout's rewards (NaN does not apply).
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
            InputError: the batch lacks one of them.
        """
        missing = [name for name in (ADVANTAGES, PROMPT, SIGNAL, APPLIES) if name not in batch]
        if missing:
            raise InputError(
                "A batch has no advantages per reward.",
                expected="a batch that this trainer generated while training",
                found=f"a batch without {', '.join(missing)}",
                fix="go through train(); start afresh when the batch comes from another version's checkpoint",
            )
        return cls(batch[ADVANTAGES], batch[PROMPT], batch[SIGNAL], batch[APPLIES])


class StepState:
    """Data that the trainer's callbacks pass to one another outside of TRL's batch.

    ============  =====================================  ========================================
    piece         put by                                 taken by
    ============  =====================================  ========================================
    generation    ``_generate_and_score_completions``    ``_generate``, which it calls (dynamic sampling)
    scores        ``_generate_and_score_completions``    ``_calculate_rewards``, which it calls (dynamic sampling)
    rewards       ``_calculate_rewards``                 ``_generate_and_score_completions``, which called it
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
        """Names of the pieces that wait to be taken."""
        pieces = {
            "generation": self._generation,
            "scores": self._scores,
            "rewards": self._rewards,
            "accumulation": self._accumulation,
        }
        return [name for name, piece in pieces.items() if piece is not None]

    def check_empty(self) -> None:
        """Raise :class:`ResourceError` unless everything that was put has been taken."""
        if self.contents:
            raise _out_of_order("a step ends", "nothing left over", " and ".join(self.contents))

    def put_drawn(self, generation: Generation, scores: Tensor) -> None:
        """Keep a generation that dynamic sampling has completed, and its rewards (N, K), until TRL asks for them."""
        self._generation, self._scores = generation, scores

    def take_generation(self) -> Generation | None:
        """Return the generation that has been drawn already; None where it is still to be drawn."""
        generation, self._generation = self._generation, None
        return generation

    def take_scores(self) -> Tensor | None:
        """Return the rewards of the generation that has been drawn already; None where it is still to be scored."""
        scores, self._scores = self._scores, None
        return scores

    def put_rewards(self, rewards: Tensor) -> None:
        """Keep a generation batch's rewards (N, K), of all processes, until the generation ends."""
        if self._rewards is not None:
            raise _out_of_order("a batch is scored", "one scoring per generation", "a second one")
        self._rewards = rewards

    def take_rewards(self) -> Tensor:
        """Return the rewards of the generation that ends."""
        rewards, self._rewards = self._rewards, None
        if rewards is None:
            raise _out_of_order("a generation ends", "rewards from _calculate_rewards", "none")
        return rewards

    def accumulation(self, start: Callable[[], AccumulationStep]) -> AccumulationStep:
        """Return the accumulation step under way, or start one."""
        if self._accumulation is None:
            self._accumulation = start()
        return self._accumulation

    def take_accumulation(self) -> AccumulationStep:
        """Return the accumulation step that is complete."""
        step, self._accumulation = self._accumulation, None
        if step is None:
            raise _out_of_order("the parameters are updated", "an accumulation step under way", "none")
        return step


def _out_of_order(moment: str, expected: str, found: str) -> ResourceError:
    return ResourceError(
        "TRL has called the hooks of ParetoGRPOTrainer in another order than the one they are made for.",
        where=f"when {moment}",
        expected=expected,
        found=found,
        fix='pip install "trl>=1.16,<1.17", and call train() again after an interruption',
    )
