"""Codes of changing items: encoded again at every tick, with codebooks frozen per version (OneLive, arXiv 2602.08612)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from taiji.core.artifacts import atomic_folder, read_json, write_json
from taiji.core.errors import ArtifactError, InputError
from taiji.models.codes.coder import Coder

Array = NDArray[Any]
NO_CODE = -1


@dataclass(eq=False)
class DynamicCodes:
    """History of each item's codes over time, with the coders that made them.

    A refit is a new version beside the old ones. Earlier codes keep their version: a label uses the code at the time of its impression, and a model
    continues with the version it was trained on.

    Attributes:
        coders: one per version, in the order in which they came into force.
    """

    coders: list[Coder] = field(default_factory=list)
    _times: list[Array] = field(default_factory=list)
    _items: list[Array] = field(default_factory=list)
    _codes: list[Array] = field(default_factory=list)
    _versions: list[Array] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Version of the coder in force."""
        return self._current().version

    def use(self, coder: Coder) -> None:
        """Put a fitted coder into force; earlier codes are unchanged.

        Raises:
            InputError: its codes differ in shape from earlier ones.
        """
        if self.coders and coder.sizes != self.coders[-1].sizes:
            raise InputError(
                "A new version of the coder has codes of another shape.",
                where="dynamic codes",
                expected=f"sizes {self.coders[-1].sizes}",
                found=str(coder.sizes),
                fix="start other dynamic codes; models of the old shape cannot read these",
            )
        self.coders.append(coder)

    def assign(self, time: int, items: Array, vectors: Array) -> Array:
        """Encode the items (N,) from their vectors (N, d) at a time, and record the codes.

        Returns:
            codes (N, L).

        Raises:
            InputError: a time before that of the last tick, or a repeated item.
        """
        items = np.asarray(items, np.int64)
        if self._times and time < self._times[-1][0]:
            raise InputError(
                "A tick is earlier than the one before it.",
                where="dynamic codes",
                expected=f"a time of at least {self._times[-1][0]}",
                found=str(time),
            )
        if len(np.unique(items)) != len(items):
            raise InputError("An item occurs twice in one tick.", where="dynamic codes", expected="each item once")
        codes = self._current().encode(vectors)
        if len(items):
            self._times.append(np.full(len(items), time, np.int64))
            self._items.append(items)
            self._codes.append(codes)
            self._versions.append(np.full(len(items), len(self.coders) - 1, np.int64))
        return codes

    def at(self, items: Array, times: Array) -> tuple[Array, Array]:
        """Return the codes (N, L) that items (N,) had at times (N,), and the number of their coder (N,); −1 before the first.

        A code assigned at exactly that time counts.
        """
        log = self._log()
        items, times = np.asarray(items, np.int64), np.asarray(times, np.int64)
        # The log is in time order; a stable sort by item keeps this order within an item; on equal times, the last one wins.
        order = np.argsort(log["items"], kind="stable")
        owner, given = log["items"][order], log["times"][order]
        # Position of (item, time) in the order of items, then times, after equal ones.
        asked = np.lexsort((np.r_[np.zeros(len(given)), np.ones(len(items))], np.r_[given, times], np.r_[owner, items]))
        rank = np.empty(len(asked), np.int64)
        rank[asked] = np.cumsum(asked < len(given))
        place = rank[len(given) :] - 1
        there = (place >= 0) & (owner[np.maximum(place, 0)] == items) if len(given) else np.zeros(len(items), bool)
        found = order[np.maximum(place, 0)] if len(given) else place
        codes = np.full((len(items), log["codes"].shape[1]), NO_CODE, np.int64)
        versions = np.full(len(items), NO_CODE, np.int64)
        codes[there], versions[there] = log["codes"][found[there]], log["versions"][found[there]]
        return codes, versions

    def save(self, folder: str | Path) -> None:
        """Write each coder into a folder of its own, the log of codes, and the versions; atomically."""
        with atomic_folder(folder) as temporary:
            for number, coder in enumerate(self.coders):
                coder.save(temporary / f"coder-{number}")
            save_file({k: np.ascontiguousarray(v) for k, v in self._log().items()}, temporary / "codes.safetensors")
            write_json(temporary / "versions.json", [coder.version for coder in self.coders])

    @classmethod
    def load(cls, folder: str | Path) -> DynamicCodes:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: damaged, or a coder's version has changed.
        """
        folder = Path(folder)
        made = cls([Coder.load(folder / f"coder-{n}") for n in range(len(read_json(folder / "versions.json")))])
        found, wanted = [coder.version for coder in made.coders], read_json(folder / "versions.json")
        if found != wanted:
            raise ArtifactError(
                "A coder differs from the saved one.",
                where=str(folder),
                expected=", ".join(wanted),
                found=", ".join(found),
                fix="restore the folder; codes of another version have another meaning",
            )
        log = load_file(folder / "codes.safetensors")
        starts = np.flatnonzero(np.diff(log["times"])) + 1
        for name, parts in (
            ("times", made._times),
            ("items", made._items),
            ("codes", made._codes),
            ("versions", made._versions),
        ):
            parts += [part for part in np.split(log[name], starts) if len(part)]
        return made

    def _current(self) -> Coder:
        if not self.coders:
            raise InputError(
                "No coder is in force.", where="dynamic codes", expected="a fitted coder", fix="call use(coder) first"
            )
        return self.coders[-1]

    def _log(self) -> dict[str, Array]:
        """Return times (T,), items (T,), codes (T, L) and versions (T,) of all codes, in time order."""
        levels = len(self.coders[-1].sizes) if self.coders else 0
        empty = np.zeros(0, np.int64)
        return {
            "times": np.concatenate([empty, *self._times]),
            "items": np.concatenate([empty, *self._items]),
            "codes": np.concatenate([np.zeros((0, levels), np.int64), *self._codes]),
            "versions": np.concatenate([empty, *self._versions]),
        }
