"""Sampling of completions by continuous batching (`lean_decode`) and speculative decoding (`prompt_lookup`).

The next prompt takes the place of a finished completion, so the batch stays full. In each step, the model reads each
completion's latest token and the tokens guessed after it. Then the next token is drawn at each of these positions, with
the same distribution and random number as in decoding without guesses. Tokens are accepted up to and including the
first one that differs from its guess. The texts are therefore the same as when one token is decoded per step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from taiji.language.lean_decode import WIDTH, GroupDecoder
from taiji.language.lean_forward import LeanModel
from taiji.language.logits_processing import Sampling, picked
from taiji.language.prompt_lookup import Repetitions, Runs

GUESSED = 4
"""Largest number of tokens guessed per row and step."""
LOT = 0.25
"""Share of the batch that must be free before new prompts are read. Several prompts are thus read together, and can
share a common prefix."""


@dataclass
class Row:
    """A running completion.

    Attributes:
        random: random stream of uniform numbers, one per token.
        text: prompt and the tokens written so far.
        written: tokens written, without a stop token.
        ended: True if a stop token or stop text ended the row, rather than the length limit.
        guessed: guessed tokens of the current step, which follow the latest token.
        ahead: uniform numbers that are drawn but not yet used, such as those of rejected tokens.
    """

    random: np.random.Generator
    text: Repetitions
    written: list[int] = field(default_factory=list)
    ended: bool = False
    guessed: list[int] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)

    def numbers(self) -> list[float]:
        """Return the uniform random numbers for the next token and for the token after each guess, (1 + guesses,)."""
        count = 1 + len(self.guessed)
        self.ahead += [float(self.random.random()) for _ in range(count - len(self.ahead))]
        return self.ahead[:count]

    def accept(
        self, drawn: Sequence[int], stops: frozenset[int], stopped: Callable[[list[int]], bool], most: int
    ) -> int:
        """Accept the drawn tokens, up to and including the first one that differs from its guess or ends the row.

        Args:
            drawn: token drawn at each position of the step.
            stops: ids that end the row.
            stopped: function that returns True if the written tokens end with a stop text.
            most: largest number of written tokens.

        Returns:
            The number of correct guesses before the last accepted token.
        """
        for place, token in enumerate(drawn):
            self.ended = token in stops
            if not self.ended:
                self.written.append(token)
                self.text.append(token)
                self.ended = stopped(self.written)
            if self.ended or len(self.written) == most or self.guessed[place : place + 1] != [token]:
                break
        del self.ahead[: place + 1]
        return place

    def propose(self, most: int) -> list[int]:
        """Return the input tokens of the next step: the latest token and the guesses after it.

        Args:
            most: largest number of written tokens.
        """
        self.guessed = self.text.guess(min(GUESSED, most - len(self.written) - 1))
        return [self.written[-1], *self.guessed]


def complete(
    model: LeanModel,
    prompts: Sequence[Sequence[int]],
    random: Sequence[Sequence[np.random.Generator]],
    sampling: Sampling,
    batch: int,
    stops: frozenset[int],
    stopped: Callable[[list[int]], bool],
    finished: Callable[[int], None],
) -> list[list[Row]]:
    """Continue every prompt once per random stream.

    Args:
        model: model for the lean forward pass.
        prompts: token ids of the prompts, which are started in this order.
        random: random streams of each prompt, one per completion; all prompts have the same number of streams.
        sampling: sampling settings.
        batch: largest number of completions that run at once. Those of one prompt always run together, even if they are
            more than this number.
        stops: ids that end a completion; they are not part of it.
        stopped: function that returns True if a completion has ended with its latest token.
        finished: function that is called with the number of newly ended completions.

    Returns:
        The completions of each prompt.
    """
    others: Runs = {}
    rows = [[Row(one, Repetitions(prompt, others)) for one in streams] for prompt, streams in zip(prompts, random)]
    copies = max(map(len, random), default=1)
    at_once, parts = max(1, batch // copies), -(-copies // WIDTH)
    decoder = GroupDecoder(model, at_once * parts)
    waiting, running = deque(range(len(prompts))), list[Row]()

    def settle(rows: list[Row], logits: torch.Tensor) -> list[int]:
        """Draw tokens for these rows, and return the number of correct guesses of each row."""
        before = [row.written + row.guessed[:place] for row in rows for place in range(1 + len(row.guessed))]
        numbers = [number for row in rows for number in row.numbers()] if sampling.temperature else []
        drawn, right, at = picked(logits, sampling, before, numbers), [], 0
        for row in rows:
            count = 1 + len(row.guessed)
            right.append(row.accept(drawn[at : at + count], stops, stopped, sampling.max_new_tokens))
            at += count
        return right

    while waiting or running:
        room = min(decoder.free // parts, at_once - len(running) // copies)
        if waiting and (not running or room >= LOT * at_once):
            new = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            begun = [row for number in new for row in rows[number]]
            logits = decoder.admit([prompts[number] for number in new for _ in rows[number]])
            settle(begun, logits)
            running += begun
        else:
            logits = decoder.step([row.propose(sampling.max_new_tokens) for row in running])
            decoder.keep([1 + right for right in settle(running, logits)])
        going = [place for place, row in enumerate(running) if not _done(row, sampling.max_new_tokens)]
        if len(going) < len(running):
            finished(len(running) - len(going))
            decoder.select(going)
            running = [running[place] for place in going]
    return rows


def _done(row: Row, most: int) -> bool:
    return row.ended or len(row.written) == most
