"""Settings of alignment that other modules must agree with."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from taiji.alignment.settings import INTERMITTENT, STEERED, AlignmentSettings, Weighting
from taiji.nn.weighting_rules import RULES


def test_a_setting_names_every_rule():
    assert set(get_args(Weighting)) == set(RULES)


def test_the_rules_that_know_a_preference_are_named():
    assert {name for name, rule in RULES.items() if rule.steered} == set(STEERED)
    assert AlignmentSettings(weighting="popo-covariance", preference=(3.0, 1.0)).preference == (3.0, 1.0)
    with pytest.raises(ValidationError, match="preference is only used by popo and popo-covariance"):
        AlignmentSettings(weighting="popo-light", preference=(3.0, 1.0))


def test_the_rules_that_may_observe_only_some_steps_are_named():
    later = {name for name, rule in RULES.items() if rule.source == "gradients" and not rule.fresh}
    assert later == set(INTERMITTENT)
    with pytest.raises(ValidationError, match="weight_every is only used by popo"):
        AlignmentSettings(weighting="mgda", weight_every=2)
