"""Guess the next tokens of a text from its own repetitions: prompt look-up for speculative decoding.

The guess is what followed the latest earlier occurrence of the last few tokens (Saxena 2023, "Prompt lookup decoding"; Yang et al. 2023,
arXiv:2304.04487). It costs nothing to be wrong: a guessed token counts only where the model draws the same one.
"""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (3, 2)
"""Tokens that must recur, the longer run first; a single one guesses too much."""


class Repetitions:
    """The runs of tokens in a text, and what came behind the latest of each."""

    def __init__(self, tokens: Iterable[int]) -> None:
        """Read a text."""
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Go on with a token."""
        # A run is entered when something stands behind it, so the text's own end is never found.
        end = len(self._tokens)
        for length in LENGTHS:
            if length <= end:
                self._behind[tuple(self._tokens[end - length :])] = end
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Return at most so many tokens that may come next."""
        for length in LENGTHS:
            place = self._behind.get(tuple(self._tokens[-length:])) if length <= len(self._tokens) else None
            if place is not None:
                return self._tokens[place : place + most]
        return []
