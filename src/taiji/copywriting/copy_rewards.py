"""The reward model of copies as a reward of alignment (GRPO); see :mod:`taiji.alignment.rewards` for the contract."""

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
    """Return the reward of a copy: the probability that it is preferred to an average one of its category and length, in (0, 1); 0 where a check fails.

    The quality alone counts: a prompt asks for its category, and length is no merit.

    Args:
        model: trained on pairs. prompts: example → what was asked for. limits: limits of the checks.
    """
    checks = CopyChecks(limits)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        missing = sorted({name for name in examples if name not in prompts})
        if missing:
            raise InputError(
                "The reward of copies does not know this example.",
                found=missing[0],
                expected="an example it was made for",
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
