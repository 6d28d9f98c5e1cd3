"""Wording: opening and closing of a copy.

A wording changes the click probability in the same way for all users. Openings also differ in their promise: a greater
promise attracts more clicks, but fewer users find it kept.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.data.tasks import Task
from taiji.world import grammar
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import sigmoid
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.copy import STYLES, Copy
from taiji.world.observation import Choice

Array = NDArray[Any]
WORDINGS = len(grammar.OPENINGS) * len(grammar.CLOSINGS)
"""Number of wordings of a style: every opening combined with every closing."""


class WordingSettings(Base):
    """Settings of ``wording``."""

    opening: float = Field(default=0.3, ge=0)
    """Standard deviation of an opening's effect on the logit of a click."""
    closing: float = Field(default=0.3, ge=0)
    """Standard deviation of a closing's effect on the logit of a click."""
    pairing: float = Field(default=0.15, ge=0)
    """Standard deviation of an opening's additional effect within one style."""
    lure: float = Field(default=0.3, ge=0)
    """Amount that a standard deviation of an opening's promise adds to the logit of a click."""
    let_down: float = Field(default=1.0, ge=0)
    """Amount that a standard deviation of an opening's promise subtracts from the logit of finding the promise kept."""
    kept: float = 0.5
    """Logit of finding the promise of an average opening kept."""


class Wording(Mechanism[WordingSettings]):
    """Wordings of copy. State: their utility (styles, wordings) and promise (wordings,), the same for all users."""

    Settings = WordingSettings
    after = ("content", "copy")
    twins: ClassVar = {
        "": {"opening": 0.0, "closing": 0.0, "pairing": 0.0, "lure": 0.0, "let_down": 0.0},
        "promise": {"lure": 0.0, "let_down": 0.0},
    }
    truths = ("wording_utility", "kept")
    labels = (Task(name="kept"),)
    decisions = ("wording",)
    bias = ("wording", "wording_propensity")

    def __init__(self, settings: WordingSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.copy = ground.need(Copy, "wording")
        opening, closing = (np.arange(len(part)) for part in (grammar.OPENINGS, grammar.CLOSINGS))
        style = np.arange(len(STYLES))[:, None]
        opened = settings.opening * draws.normal("opening", opening)
        opened = opened + settings.pairing * draws.normal("pairing", style, opening[None, :])
        closed = settings.closing * draws.normal("closing", closing)
        self.promise = np.repeat(draws.normal("promise", opening), len(closing))
        plain = (opened[:, :, None] + closed).reshape(len(STYLES), WORDINGS)
        self.utility = plain + settings.lure * self.promise

    def serve(self, exposure: Exposure, choice: Choice) -> None:
        """Use the policy's wordings, given by index. If the policy chooses none, draw them uniformly."""
        if "wording" not in exposure.display:
            exposure.display["wording"] = self.draws.integers("wording", WORDINGS, *exposure.keys)
            exposure.display["wording_propensity"] = np.full(exposure.shape, 1 / WORDINGS)
        self._check(exposure.display["wording"])

    def assume(self, exposure: Exposure) -> None:
        """Use the first wording if no wordings are given."""
        exposure.display.setdefault("wording", np.zeros(exposure.shape, dtype=np.int64))
        self._check(exposure.display["wording"])

    def _check(self, wordings: Array) -> None:
        if wordings.dtype.kind not in "iu" or (wordings < 0).any() or (wordings >= WORDINGS).any():
            raise InputError(
                "The copy has no such wording.", expected=f"integers from 0 to {WORDINGS - 1}",
                found=f"{wordings.dtype} from {wordings.min()} to {wordings.max()}",
            )  # fmt: skip

    def shape(self, exposure: Exposure) -> None:
        """Add the wording's utility to the click's logit."""
        exposure.add("click", self._of(exposure))

    def _of(self, exposure: Exposure) -> Array:
        return np.asarray(self.utility[exposure.display["style"], exposure.display["wording"]])

    def _chance(self, exposure: Exposure) -> Array:
        """Return the probability (B, L) that a clicking user finds the promise kept."""
        s = self.settings
        return sigmoid(s.kept - s.let_down * self.promise[exposure.display["wording"]])

    def expect(self, exposure: Exposure) -> None:
        """Set the expectations of the wording's utility, and of clicks whose users find the promise kept."""
        exposure.expected["wording_utility"] = self._of(exposure)
        exposure.expected["kept"] = exposure.expected["click"] * self._chance(exposure)

    def draw(self, exposure: Exposure) -> None:
        """Draw whether clicking users find the promise kept, and add opening and closing to the copy."""
        content = self.draws.uniform("kept", *exposure.keys) < self._chance(exposure)
        exposure.outcome["kept"] = exposure.outcome["click"] * content
        texts = grammar.worded(exposure.display["copy"].ravel().tolist(), exposure.display["wording"].ravel())
        exposure.display["copy"] = np.array(texts, dtype=object).reshape(exposure.shape)
        exposure.display.setdefault("wording_propensity", np.ones(exposure.shape))
