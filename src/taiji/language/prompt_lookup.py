"""Prompt lookup for speculative decoding: guess the next tokens of a text from repetitions in it and in similar texts.

The guess is the text that followed the latest occurrence of the last few tokens (Saxena 2023, "Prompt lookup decoding";
Yang et al. 2023, arXiv:2304.04487). A wrong guess does no harm, because a guessed token counts only if the model draws
the same one.
"""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (3, 2)
"""Numbers of last tokens that are looked up, in this order. A single token would match too often."""

Runs = dict[tuple[int, ...], tuple[list[int], int]]
"""Map from a run of tokens to the text with its latest occurrence and the position after this occurrence."""


class Repetitions:
    """Text with an index that maps each short run of its tokens to the tokens after the run's latest occurrence."""

    def __init__(self, tokens: Iterable[int], others: Runs | None = None) -> None:
        """Read a text.

        Args:
            tokens: the text so far.
            others: index that is shared by similar texts. Runs of tokens that are appended to this text later are added
                to it. It is searched for runs that this text does not contain.
        """
        self._tokens: list[int] = []
        self._own: Runs = {}
        self._others: Runs = {}
        for token in tokens:
            self.append(token)
        if others is not None:
            self._others = others

    def append(self, token: int) -> None:
        """Append a token."""
        # A run is stored when a token follows it, so that a lookup never finds the end of the text itself.
        for length in LENGTHS:
            if length <= len(self._tokens):
                run = tuple(self._tokens[-length:])
                self._own[run] = self._others[run] = (self._tokens, len(self._tokens))
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Return at most ``most`` tokens that may come next."""
        for runs in (self._own, self._others):
            for length in LENGTHS:
                found = runs.get(tuple(self._tokens[-length:]))
                if found is not None:
                    text, place = found
                    return text[place : place + most]
        return []
