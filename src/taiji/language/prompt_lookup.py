"""Guess the next tokens of a text from repetitions, its own and those of texts beside it: prompt look-up for speculative decoding.

The guess is what followed the latest occurrence of the last few tokens (Saxena 2023, "Prompt lookup decoding"; Yang et al. 2023,
arXiv:2304.04487). It costs nothing to be wrong: a guessed token counts only where the model draws the same one.
"""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (3, 2)
"""Tokens that must recur, the longer run first; a single one guesses too much."""

Runs = dict[tuple[int, ...], tuple[list[int], int]]
"""For a run of tokens the text in which it occurred last, and the place behind it."""


class Repetitions:
    """A text's runs of tokens, and what came behind the latest of each."""

    def __init__(self, tokens: Iterable[int], others: Runs | None = None) -> None:
        """Read a text.

        Args:
            tokens: the text so far.
            others: shared by texts that are likely to resemble each other: what is appended goes there too, and is looked up there
                where the text has no such run of its own.
        """
        self._tokens: list[int] = []
        self._own: Runs = {}
        self._others: Runs = {}
        for token in tokens:
            self.append(token)
        if others is not None:
            self._others = others

    def append(self, token: int) -> None:
        """Go on with a token."""
        # A run is entered when something stands behind it, so the text's own end is never found.
        for length in LENGTHS:
            if length <= len(self._tokens):
                run = tuple(self._tokens[-length:])
                self._own[run] = self._others[run] = (self._tokens, len(self._tokens))
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Return at most so many tokens that may come next."""
        for runs in (self._own, self._others):
            for length in LENGTHS:
                found = runs.get(tuple(self._tokens[-length:]))
                if found is not None:
                    text, place = found
                    return text[place : place + most]
        return []
