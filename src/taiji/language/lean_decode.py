"""Decoder with continuous batching on the lean forward pass (`lean_forward`). A row can get several tokens per step.

A row is one running completion. The rows of a prompt form groups of at most :data:`WIDTH`. A group has one buffer of
keys and values: the prompt's tokens come first, and the rows' tokens take any free slots after them. A mask records
which slot belongs to which row. Attention is therefore two batched products over groups, for any number of rows and
tokens per group. The slots of ended rows and groups are reused. Data are copied only if the buffers are resized or a
group moves into the place of an unused one.

In shapes, R is the number of running rows, Hq and Hk are the numbers of query heads and of key heads, d is the size of
a head, H the width of a hidden state, and V the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from taiji.core.errors import InputError
from taiji.data.history import rows_and_places
from taiji.language.lean_forward import LeanModel
from taiji.language.prefix_tree import PackedTree

GROWTH = 1.06
"""Capacity of a new buffer, as a multiple of the current need. It is near 1, because products read whole buffers."""
SLACK = 1.2
"""A buffer is shrunk if its capacity exceeds this multiple of the current need."""
SHARED = 0.75
"""Prompts are read together if prefix sharing reduces their tokens to at most this share. Otherwise they are read one
at a time, which is faster per token."""
WIDTH = 16
"""Largest number of rows that share one copy of their prompt's keys and values. Each row attends, with a mask, over the
slots of all these rows."""
ALL, NOBODY = -1, -2
"""Owners of a slot other than a single row: all rows of the group (for tokens of the prompt), or none (a free slot)."""


@dataclass
class _Row:
    """Running row: its id, its group, the number of tokens read, and the slots of the latest tokens."""

    number: int
    group: int
    length: int
    places: list[int] = field(default_factory=list)


def row_counts(prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int) -> list[int]:
    """Return the number of rows of each prompt.

    Raises:
        InputError: a prompt has no row, or no new token is requested.
    """
    counts = [copies] * len(prompts) if isinstance(copies, int) else list(copies)
    if len(counts) != len(prompts) or min(counts, default=0) < 1 or max_new < 1:
        raise InputError(
            "There is nothing to decode.",
            expected="at least one row per prompt and one new token",
            found=f"rows {counts[:8]}, {max_new} tokens",
        )
    return counts


def groups_of(prompts: Sequence[Sequence[int]]) -> dict[tuple[tuple[int, ...], int], list[int]]:
    """Return groups of at most :data:`WIDTH` rows with the same prompt, as a map from (prompt, part) to row indices."""
    seen: dict[tuple[int, ...], int] = {}
    groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for place, prompt in enumerate(prompts):
        key = tuple(prompt)
        seen[key] = seen.get(key, -1) + 1
        groups.setdefault((key, seen[key] // WIDTH), []).append(place)
    return groups


class GroupDecoder:
    """Decoder with the keys and values of all running rows. Rows can be admitted and dropped at any step."""

    def __init__(self, model: LeanModel, groups: int) -> None:
        """Create the state for a model and a given number of groups."""
        self._model = model
        # Shape (groups, Hk, d, room) each: both products of attention are fastest with this layout.
        self._keys = [self._zeros(groups, 0) for _ in model.layers]
        self._values = [self._zeros(groups, 0) for _ in model.layers]
        self._owner = np.full((groups, 0), NOBODY, np.int64)
        self._position = np.zeros((groups, 0), np.int64)
        self._free: list[list[int]] = [[] for _ in range(groups)]
        self._holes = list(range(groups))[::-1]
        self._rows: list[_Row] = []
        self._made = 0

    @property
    def numbers(self) -> list[int]:
        """Ids of the running rows, in order of arrival. The first row ever admitted has id 0."""
        return [row.number for row in self._rows]

    @property
    def free(self) -> int:
        """Number of unused groups."""
        return len(self._holes)

    @property
    def room(self) -> int:
        """Current capacity of the buffers, in tokens per group."""
        return int(self._owner.shape[1])

    def admit(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add one running row per prompt. Each distinct prompt and each common prefix is computed only once.

        Args:
            prompts: token ids, one entry per new row.

        Returns:
            (rows, V) logits of the first token of each row.

        Raises:
            InputError: there are more groups of rows than unused groups.
        """
        groups = groups_of(prompts)
        if len(groups) > len(self._holes):
            raise InputError(
                "There are too many prompts for the decoder.",
                expected=f"at most {len(self._holes)} groups of rows, the number of unused groups",
                found=f"{len(groups)} groups",
            )
        self._make_room(max(map(len, prompts)) + 1)
        into = {key: self._holes.pop() for key in groups}
        distinct = list(dict.fromkeys(prompt for prompt, _ in groups))
        tree = PackedTree(distinct)
        together = len(tree) <= SHARED * sum(map(len, distinct))
        device = self._model.embedding.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            parts = [distinct] if together else [[prompt] for prompt in distinct]
            logits = self._model.logits(torch.cat([self._read(part, into) for part in parts]))
        rows: dict[int, _Row] = {}
        for (prompt, part), places in groups.items():
            group, length = into[prompt, part], len(prompt)
            self._owner[group, :length], self._owner[group, length:] = ALL, NOBODY
            self._position[group, :length] = np.arange(length)
            self._free[group] = list(range(self.room - 1, length - 1, -1))
            rows |= {place: _Row(self._made + place, group, length) for place in places}
        self._made += len(prompts)
        self._rows += [rows[place] for place in range(len(prompts))]
        number = {prompt: place for place, prompt in enumerate(distinct)}
        return logits[torch.tensor([number[tuple(prompt)] for prompt in prompts], device=device)]

    def _read(self, prompts: list[tuple[int, ...]], into: dict[tuple[tuple[int, ...], int], int]) -> torch.Tensor:
        """Return the hidden states (prompts, H) at the prompts' last tokens, and store keys and values in their
        groups."""
        tree = PackedTree(prompts)
        paths = [torch.from_numpy(path).to(self._model.embedding.device) for path in tree.paths]
        targets = [[group for (prompt, _), group in into.items() if prompt == own] for own in prompts]

        def keep(layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
            for buffer, states in ((self._keys[layer], key), (self._values[layer], value)):
                for path, groups in zip(paths, targets):
                    own = (states if len(prompts) == 1 else states[path]).permute(1, 2, 0)
                    for group in groups:
                        buffer[group, :, :, : len(path)] = own

        return self._model.read(tree, torch.stack([path[-1] for path in paths]), keep)

    def step(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append tokens to the running rows, one or more to each.

        Returns:
            (tokens, V) logits after each token, row by row.

        Raises:
            InputError: the number of token lists differs from the number of running rows, or a list is empty.
        """
        if len(tokens) != len(self._rows) or min(map(len, tokens), default=0) < 1:
            raise InputError(
                "The number of token lists differs from the number of running rows, or a list is empty.",
                expected=f"{len(self._rows)} rows",
                found=f"{len(tokens)} rows",
            )
        self._close_holes()
        occupied = (self._owner[: len({row.group for row in self._rows})] != NOBODY).any(0)
        needed = int(np.flatnonzero(occupied)[-1]) + max(map(len, tokens)) + 1
        if needed * SLACK < self.room:
            self._resize(needed)
        counts = np.array([len(row) for row in tokens])
        of_row, within = rows_and_places(counts)
        groups = np.array([row.group for row in self._rows])[of_row]
        positions = np.array([row.length for row in self._rows])[of_row] + within
        places = np.array([place for row, count in zip(self._rows, counts) for place in self._take(row, int(count))])
        owners = np.array(self.numbers)[of_row]
        self._owner[groups, places], self._position[groups, places] = owners, positions
        for row, count in zip(self._rows, counts):
            row.length += int(count)
        order = np.argsort(groups, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        ids = np.array([token for row in tokens for token in row], np.int64)
        device = self._model.embedding.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            hidden = self._forward(
                torch.from_numpy(ids[order]).to(device), groups[order], places[order], positions[order], owners[order]
            )
            return self._model.logits(hidden[torch.from_numpy(back).to(device)])

    def keep(self, counts: Sequence[int]) -> None:
        """Keep only the first ``counts`` tokens that the latest step appended to each running row, and drop the
        others."""
        for row, count in zip(self._rows, counts):
            row.length -= len(row.places) - count
            self._release(row.group, row.places[count:])
            row.places = row.places[:count]

    def select(self, kept: Sequence[int]) -> None:
        """Keep only the given running rows (indices into `numbers`, ascending)."""
        staying = set(kept)
        leaving = [row for place, row in enumerate(self._rows) if place not in staying]
        self._rows = [self._rows[place] for place in kept]
        for row in leaving:
            self._release(row.group, np.flatnonzero(self._owner[row.group] == row.number)[::-1].tolist())
        used = {row.group for row in self._rows}
        self._holes += {row.group for row in leaving} - used

    def _zeros(self, groups: int, room: int) -> torch.Tensor:
        # A slot without owner has weight zero. Zero times uninitialised memory may be NaN, so buffers start as zeros.
        model = self._model
        shape = (groups, model.kv_heads, model.size, room)
        return torch.zeros(shape, dtype=model.dtype, device=model.embedding.device)

    def _make_room(self, needed: int) -> None:
        """Ensure capacity for the given number of tokens per group."""
        if needed > self.room:
            self._resize(needed)

    def _resize(self, needed: int) -> None:
        """Allocate buffers for the given number of tokens per group. All owned slots must lie within them."""
        groups, before = self._owner.shape
        room = -(-int(needed * GROWTH) // 16) * 16
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._zeros(groups, room)
                buffers[layer][..., :before] = old[..., :room]
        more = ((0, 0), (0, max(room - before, 0)))
        self._owner = np.pad(self._owner[:, :room], more, constant_values=NOBODY)
        self._position = np.pad(self._position[:, :room], more)
        new = range(room - 1, before - 1, -1)
        self._free = [[*new, *(place for place in free if place < room)] for free in self._free]

    def _take(self, row: _Row, count: int) -> list[int]:
        """Assign slots for the given number of tokens to a row."""
        if len(self._free[row.group]) < count:
            self._resize(self.room + count)
        row.places = [self._free[row.group].pop() for _ in range(count)]
        return row.places

    def _release(self, group: int, places: Sequence[int]) -> None:
        self._owner[group, list(places)] = NOBODY
        self._free[group] += list(places)[::-1]

    def _close_holes(self) -> None:
        """Move groups down so that the used groups come first."""
        used = sorted({row.group for row in self._rows})
        moves = dict(zip(used[::-1], sorted(hole for hole in self._holes if hole < len(used))))
        for origin, hole in moves.items():
            extent = int(np.flatnonzero(self._owner[origin] != NOBODY)[-1]) + 1
            for keys, values in zip(self._keys, self._values):
                keys[hole, :, :, :extent] = keys[origin, :, :, :extent]
                values[hole, :, :, :extent] = values[origin, :, :, :extent]
            self._owner[hole], self._position[hole] = self._owner[origin], self._position[origin]
            self._owner[origin], self._free[hole] = NOBODY, self._free[origin]
        if moves:
            self._holes = [moves_back for moves_back in self._holes if moves_back not in moves.values()] + list(moves)
            for row in self._rows:
                row.group = moves.get(row.group, row.group)

    def _forward(
        self,
        ids: torch.Tensor,
        groups: np.ndarray,
        places: np.ndarray,
        positions: np.ndarray,
        owners: np.ndarray,
    ) -> torch.Tensor:
        """Return the hidden states (n, H) of n new tokens, sorted by group, and store their keys and values."""
        model, device = self._model, ids.device
        per_group = np.bincount(groups)
        _, within = rows_and_places(per_group)
        windows = {layer.window for layer in model.layers}
        biases = self._biases(groups, within, positions, owners, windows)
        count, _, width, *_ = biases[model.layers[0].window].shape
        flat = groups * width + within
        slots = np.zeros(count * width, np.int64)
        slots[flat] = np.arange(len(flat))
        even = len(slots) == len(flat)
        to_slots, to_flat = (torch.from_numpy(index).to(device) for index in (slots, flat))
        group, place = (torch.from_numpy(index).to(device) for index in (groups, places))
        biases = {window: bias.to(device) for window, bias in biases.items()}
        angles = model.angles(torch.from_numpy(positions).to(device))
        hidden = model.embedded(ids)
        for layer, keys, values in zip(model.layers, self._keys, self._values):
            query, key, value = model.project(layer, hidden, *angles[layer.kind])
            keys[group, :, :, place], values[group, :, :, place] = key, value
            query = query * model.scale
            grid = (query if even else query[to_slots]).view(count, width, model.kv_heads, -1, model.size)
            mixed = attend(grid, keys[:count], values[:count], biases[layer.window])
            mixed = mixed.reshape(count * width, -1)
            hidden = model.finish(layer, hidden, mixed if even else mixed[to_flat])
        return hidden

    def _biases(
        self,
        groups: np.ndarray,
        within: np.ndarray,
        positions: np.ndarray,
        owners: np.ndarray,
        windows: Iterable[int | None],
    ) -> dict[int | None, torch.Tensor]:
        """Return the attention bias (groups, 1, W, 1, slots) of each window, where W is the largest number of new
        tokens in a group.

        It is 0 where a token attends to a slot, and minus infinity elsewhere. A window that is at least as long as
        every row has the same bias as no window (None).
        """
        count, width = int(groups[-1]) + 1, int(within.max()) + 1
        owner, position = self._owner[:count, None], self._position[:count, None]
        asking, now = np.full((count, width, 1), NOBODY, np.int64), np.zeros((count, width, 1), np.int64)
        asking[groups, within, 0], now[groups, within, 0] = owners, positions
        sees = (owner == ALL) | ((owner == asking) & (position <= now) & (owner != NOBODY))
        longest = int(positions.max())

        def bias(within_reach: np.ndarray) -> torch.Tensor:
            zeros = torch.zeros(sees.shape, dtype=self._model.dtype)
            return zeros.masked_fill_(torch.from_numpy(~within_reach), -torch.inf)[:, None, :, None]

        whole = bias(sees)
        return {
            window: whole if window is None or longest < window else bias(sees & (now - position < window))
            for window in windows
        }


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the masked attention of the W tokens of each of G groups to the N slots of the group.

    Args:
        query: (G, W, Hk, Hq / Hk, d), already multiplied by the scale of the scores.
        keys, values: (G, Hk, d, N), contiguous.
        bias: (G, 1, W, 1, N).

    Returns:
        (G, W, Hk, Hq / Hk, d).
    """
    count, width, kv, share, size = query.shape
    rows = query.permute(0, 2, 1, 3, 4).reshape(count * kv, width * share, size)
    scores = torch.bmm(rows, keys.flatten(0, 1)).view(count, kv, width, share, -1).add_(bias)
    mixed = torch.bmm(
        torch.softmax(scores, -1).view(count * kv, width * share, -1), values.flatten(0, 1).transpose(1, 2)
    )
    return mixed.view(count, kv, width, share, size).permute(0, 2, 1, 3, 4)


class LeanDecoder:
    """:class:`GroupDecoder` with the interface of :class:`~taiji.language.prefix_decode.SharedDecoder`."""

    def __init__(
        self, model: LeanModel, prompts: Sequence[Sequence[int]], copies: int | Sequence[int], max_new: int
    ) -> None:
        """See :class:`~taiji.language.prefix_decode.SharedDecoder`."""
        counts = row_counts(prompts, copies, max_new)
        self.prompt_of = np.repeat(np.arange(len(prompts)), counts)
        rows = [prompts[int(number)] for number in self.prompt_of]
        self._decoder = GroupDecoder(model, len(groups_of(rows)))
        self._left = max_new
        self.logits = self._decoder.admit(rows)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every running row, and return the next logits (R, V), which are also kept in `logits`."""
        if self._left < 1:
            raise InputError(
                "The rows have no space left for another token.", expected="no more steps than new tokens requested"
            )
        self._left -= 1
        self.logits = self._decoder.step([[int(token)] for token in tokens])
        return self.logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the given running rows (ascending)."""
        self._decoder.select(rows)
        kept = np.asarray(rows)
        self.prompt_of, self.logits = self.prompt_of[kept], self.logits[torch.from_numpy(kept).to(self.logits.device)]
