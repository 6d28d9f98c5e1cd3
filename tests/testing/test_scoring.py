"""A check that nothing fails is no check: each promise of a scorer, broken once."""

import numpy as np
import pytest

from taiji.core.component import Slate
from taiji.testing import check_learns_checkerboard, check_scorer, checkerboard


class Colour:
    """The right answer of the checkerboard, written down."""

    def encode(self, requests):
        return requests

    def score(self, state, slate: Slate):
        own = (state.user[:, None] + slate.items) % 2 == 0
        return {"click": own + slate.items / 1000}


class Ranks(Colour):
    """Scores depend on the other candidates."""

    def score(self, state, slate):
        return {"click": super().score(state, slate)["click"].argsort(axis=1).argsort(axis=1).astype(float)}


class Places(Colour):
    """Scores depend on the place."""

    def score(self, state, slate):
        return {"click": super().score(state, slate)["click"] + np.arange(slate.items.shape[1])}


class Neighbours(Colour):
    """Scores depend on the other requests."""

    def score(self, state, slate):
        return {"click": super().score(state, slate)["click"] + len(state)}


class Forgetful(Colour):
    """Scores change from call to call."""

    calls = 0

    def score(self, state, slate):
        self.calls += 1
        return {"click": super().score(state, slate)["click"] + 1e-3 * self.calls}


class Single(Colour):
    """Scores in single precision."""

    def score(self, state, slate):
        return {"click": super().score(state, slate)["click"].astype(np.float32)}


class Holes(Colour):
    """Scores that are not finite."""

    def score(self, state, slate):
        return {"click": np.where(slate.items == 3, np.nan, super().score(state, slate)["click"])}


@pytest.fixture(scope="module")
def board():
    return checkerboard()


def test_the_right_answer_passes(board):
    check_scorer(Colour(), board, tolerance=0.0)
    check_learns_checkerboard(Colour(), board)


@pytest.mark.parametrize(
    "broken", [Ranks, Places, Neighbours, Forgetful, Single, Holes], ids=lambda kind: kind.__name__
)
def test_a_broken_promise_is_found(broken, board):
    with pytest.raises(AssertionError):
        check_scorer(broken(), board)


def test_a_model_that_ranks_the_other_colour_is_found(board):
    class Wrong(Colour):
        def score(self, state, slate):
            return {"click": -super().score(state, slate)["click"]}

    check_scorer(Wrong(), board)
    with pytest.raises(AssertionError, match="other colour"):
        check_learns_checkerboard(Wrong(), board)
