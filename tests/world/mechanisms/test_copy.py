"""Readers have tastes for styles, and the log says which style they saw."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import small, surprise

from taiji.core.errors import InputError
from taiji.world.laws import logit
from taiji.world.mechanisms.copy import STYLES, Copy
from taiji.world.observation import Choice


def test_a_style_adds_its_utility_to_the_logit_and_none_in_the_twin():
    world = small("push")
    users, items = np.arange(100), np.zeros((100, 1), dtype=int)
    utility = world.find(Copy).utility[:100]
    logits = [
        logit(world.truth.expect(users, items, display={"style": np.full((100, 1), style)})["click"][:, 0])
        for style in range(len(STYLES))
    ]
    np.testing.assert_allclose(np.stack(logits, axis=1) - logits[0][:, None], utility - utility[:, :1], atol=1e-9)
    twin = world.twin("copy").truth
    same = [twin.expect(users, items, display={"style": np.full((100, 1), s)})["click"] for s in range(2)]
    np.testing.assert_array_equal(same[0], same[1])


def test_styles_are_even_where_nobody_chooses_and_kept_where_somebody_does():
    world = small("push", users=600)
    events = world.log("random", days=4).events
    counts = [int((events["style_name"] == style).sum()) for style in STYLES]
    assert surprise(counts, np.full(6, len(events) / 6)) < 4
    assert np.allclose(events["style_propensity"].to_numpy(), 1 / 6)
    assert events.filter(events["style_name"] == "question")["copy"].str.starts_with("Do you know").all()
    items = world.reset().candidates.items[:, :1]
    exposure = world.step(Choice(items, display={"style": np.full(items.shape, 3)}))
    assert (exposure.display["style_name"] == "question").all() and (exposure.display["style_propensity"] == 1).all()
    with pytest.raises(InputError, match="0 to 5"):
        world.step(
            Choice(
                world.observation.candidates.items[:, :1], display={"style": np.full((len(world.observation), 1), 6)}
            )
        )
