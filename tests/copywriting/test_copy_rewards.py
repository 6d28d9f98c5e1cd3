"""The reward of copies: the contract of alignment's rewards, 0 for what is not grounded, and TRL's form of it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.copywriting.evidences import evidence

from taiji.alignment.rewards import for_trl
from taiji.alignment.text_reward_model import TextScores
from taiji.copywriting.copy_categories import copy_categories, copy_prompt
from taiji.copywriting.copy_rewards import copy_reward
from taiji.copywriting.settings import CopyLimits, CopywritingSettings
from taiji.core.errors import InputError


class Likes:
    """Likes exactly one word; the prior would drown it."""

    def scores(self, texts, categories):
        quality = np.array([1.0 if "quiet" in text else -1.0 for text in texts])
        return TextScores(quality, quality * 0 + 50, quality * 0)


PROMPTS = {"e": copy_prompt(evidence(), copy_categories(CopywritingSettings(), "shop")[0], CopywritingSettings())}


def test_the_reward_is_a_probability_and_nothing_ungrounded_gets_any():
    reward = copy_reward(Likes(), PROMPTS, CopyLimits())
    said = ["A quiet Alpine lamp", '"A lovely Alpine lamp"', "A quiet Rolex lamp", ""]
    found = reward(["e"] * 4, said)
    assert found == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.0, 0.0])
    assert for_trl("copy", reward)([], said, ["e"] * 4) == pytest.approx(found.tolist())
    with pytest.raises(InputError, match="without a prompt for this example"):
        reward(["other"], ["A lamp"])
