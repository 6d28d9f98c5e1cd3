"""The reward model of copies as a reward for alignment (GRPO); see :mod:`taiji.alignment.rewards` for the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.alignment.rewards import Reward
from taiji.alignment.text_reward_model import TextRewardModel
from taiji.copywriting.copy_categories import CopyPrompt
from taiji.copywriting.copy_checks import CopyChecks
from taiji.copywriting.copy_writers import copy_text
from taiji.copywriting.settings import CopyLimits
from taiji.core.errors import InputError
from taiji.nn.bradley_terry import preferred


def copy_reward(model: TextRewardModel, prompts: Mapping[str, CopyPrompt], limits: CopyLimits) -> Reward:
    """Return the reward of a copy: the probability, in (0, 1), that it is preferred to an average copy of the same
    category and length. The reward is 0 if a check fails.

    Only the quality part of the score is used, because the prompt determines the category, and length should not be
    rewarded.

    Args:
        model: reward model trained on pairs.
        prompts: prompt of each example, by the name of the example.
        limits: limits of the checks.
    """
    checks = CopyChecks(limits)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        missing = sorted({name for name in examples if name not in prompts})
        if missing:
            raise InputError(
                "The copy reward was created without a prompt for this example.",
                found=missing[0],
                expected="an example for which the reward has a prompt",
            )
        texts = [copy_text(text) for text in completions]
        asked = [prompts[name] for name in examples]
        good = np.array([not checks.reasons(text, one.evidence) for text, one in zip(texts, asked)], dtype=bool)
        found = np.zeros(len(texts))
        if good.any():
            rows = np.flatnonzero(good)
            scores = model.scores([texts[row] for row in rows], [asked[row].category.name for row in rows])
            found[rows] = preferred(scores.quality)
        return found

    return reward
