"""Copy: the text that announces an item, in one of several styles, and users' tastes for styles."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.world import grammar
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content
from taiji.world.observation import Choice

Array = NDArray[Any]
STYLES = tuple(grammar.STYLES)


class CopySettings(Base):
    """Settings of ``copy``."""

    taste: float = Field(default=0.8, ge=0)
    """Standard deviation, over users, of a style's effect on the logit of a click."""
    common: float = Field(default=0.4, ge=0)
    """Standard deviation, over styles, of the part of a style's effect that is the same for all users."""


class Copy(Mechanism[CopySettings]):
    """Copy of items. State: utility of each style for each user, (users, styles), constant."""

    Settings = CopySettings
    after = ("content",)
    twins: ClassVar = {"": {"taste": 0.0, "common": 0.0}, "taste": {"taste": 0.0}}
    truths = ("style_utility",)
    decisions = ("style",)
    bias = ("style_name", "copy", "style_propensity")

    def __init__(self, settings: CopySettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        self.content = ground.need(Content, "copy")
        user, style = np.arange(ground.users)[:, None], np.arange(len(STYLES))[None, :]
        common = settings.common * draws.normal("common", np.arange(len(STYLES)))
        self.utility = settings.taste * draws.normal("taste", user, style) + common

    def serve(self, exposure: Exposure, choice: Choice) -> None:
        """Use the policy's styles, given by index. If the policy chooses none, draw them uniformly."""
        if "style" not in exposure.display:
            exposure.display["style"] = self.draws.integers("style", len(STYLES), *exposure.keys)
            exposure.display["style_propensity"] = np.full(exposure.shape, 1 / len(STYLES))
        self._check(exposure.display["style"])

    def assume(self, exposure: Exposure) -> None:
        """Use the first style if no styles are given."""
        exposure.display.setdefault("style", np.zeros(exposure.shape, dtype=np.int64))
        self._check(exposure.display["style"])

    def _check(self, styles: Array) -> None:
        if styles.dtype.kind not in "iu" or (styles < 0).any() or (styles >= len(STYLES)).any():
            raise InputError(
                "The copy has no such style.", expected=f"integers from 0 to {len(STYLES) - 1}",
                found=f"{styles.dtype} from {styles.min()} to {styles.max()}",
            )  # fmt: skip

    def shape(self, exposure: Exposure) -> None:
        """Add the style's utility to the click's logit."""
        exposure.add("click", self.utility[exposure.user[:, None], exposure.display["style"]])

    def expect(self, exposure: Exposure) -> None:
        """Set the expectation of the style's utility."""
        exposure.expected["style_utility"] = self.utility[exposure.user[:, None], exposure.display["style"]]

    def draw(self, exposure: Exposure) -> None:
        """Write the copy, its style and the style's propensity to ``exposure.display``."""
        styles, items = exposure.display["style"], exposure.safe_items
        titles = self.content.titles
        texts = grammar.copies(styles.ravel(), [titles[item] for item in items.ravel().tolist()])
        exposure.display["copy"] = np.array(texts, dtype=object).reshape(exposure.shape)
        exposure.display["style_name"] = np.array(STYLES)[styles]
        exposure.display.setdefault("style_propensity", np.ones(exposure.shape))
