"""Item codes that change over time (OneLive, arXiv 2602.08612).

Each call of ``assign`` is a tick. It encodes items with the current coder, whose codebooks are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from taiji.core.artifacts import atomic_folder, read_json, write_json
from taiji.core.errors import ArtifactError, InputError
from taiji.models.codes.code_log import CodeLog
from taiji.models.codes.coder import Coder

Array = NDArray[Any]
NO_CODE = -1


@dataclass(eq=False)
class DynamicCodes:
    """Each item's codes over time, and the coders that assigned them.

    A refit adds a new coder and keeps the old ones. Codes that were assigned earlier keep their version. Thus, a label
    uses the codes that the item had at the time of the impression, and a model continues to use the version on which it
    was trained.

    Attributes:
        coders: one coder per version, in the order in which the coders became current.
    """

    coders: list[Coder] = field(default_factory=list)
    _times: list[Array] = field(default_factory=list)
    _items: list[Array] = field(default_factory=list)
    _codes: list[Array] = field(default_factory=list)
    _versions: list[Array] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Version of the current coder."""
        return self._current().version

    def use(self, coder: Coder) -> None:
        """Make a fitted coder the current one. Codes that were assigned earlier do not change.

        Raises:
            InputError: the coder's numbers of codes per level differ from those of the previous coder.
        """
        if self.coders and coder.sizes != self.coders[-1].sizes:
            raise InputError(
                "The new version of the coder has codes of a different shape.",
                where="dynamic codes",
                expected=f"sizes {self.coders[-1].sizes}",
                found=str(coder.sizes),
                fix="start new dynamic codes; models of the old shape cannot read codes of the new one",
            )
        self.coders.append(coder)

    def assign(self, time: int, items: Array, vectors: Array) -> Array:
        """Encode the vectors (N, d) of items (N,), and record the codes as valid from the given time on.

        Returns:
            The codes (N, L).

        Raises:
            InputError: there is no current coder, the time is earlier than the last tick, an item is repeated, or the
                number of vectors differs from the number of items.
        """
        items = np.asarray(items, np.int64)
        if self._times and time < self._times[-1][0]:
            raise InputError(
                "A tick is earlier than the previous one.",
                where="dynamic codes",
                expected=f"a time of at least {self._times[-1][0]}",
                found=str(time),
            )
        if len(np.unique(items)) != len(items):
            raise InputError(
                "An item occurs twice in one tick.", where="dynamic codes", expected="each item at most once"
            )
        if len(vectors) != len(items):
            raise InputError(
                "The vectors do not match the items.", where="dynamic codes", expected=f"{len(items)} vectors, one per item",
                found=f"{len(vectors)} vectors",
            )  # fmt: skip
        codes = self._current().encode(vectors)
        if len(items):
            self._times.append(np.full(len(items), time, np.int64))
            self._items.append(items)
            self._codes.append(codes)
            self._versions.append(np.full(len(items), len(self.coders) - 1, np.int64))
        return codes

    def at(self, items: Array, times: Array) -> tuple[Array, Array]:
        """Return the codes (N, L) that items (N,) had at times (N,), and the index (N,) in :attr:`coders` of the coder
        that assigned each item's codes.

        Codes that were assigned at exactly the given time count. Before an item's first assignment, its codes and the
        index are −1.
        """
        log = self.log
        found = log.last(items, times)
        there = found >= 0
        codes = np.full((len(found), log.codes.shape[1]), NO_CODE, np.int64)
        versions = np.full(len(found), NO_CODE, np.int64)
        codes[there], versions[there] = log.codes[found[there]], self._coder_indices()[found[there]]
        return codes, versions

    @property
    def log(self) -> CodeLog:
        """Log of all assigned codes."""
        empty, levels = np.zeros(0, np.int64), len(self.coders[-1].sizes) if self.coders else 0
        return CodeLog(
            np.concatenate([empty, *self._times]),
            np.concatenate([empty, *self._items]),
            np.concatenate([np.zeros((0, levels), np.int64), *self._codes]),
        )

    @property
    def log_of_version(self) -> CodeLog:
        """Log of the codes that the current coder assigned."""
        log, own = self.log, self._coder_indices() == len(self.coders) - 1
        return CodeLog(log.times[own], log.items[own], log.codes[own])

    def save(self, folder: str | Path) -> None:
        """Write each coder into its own subfolder, the log of codes, and the coders' versions. The whole folder is
        written atomically."""
        with atomic_folder(folder) as temporary:
            for number, coder in enumerate(self.coders):
                coder.save(temporary / f"coder-{number}")
            log = self.log
            tables = {"times": log.times, "items": log.items, "codes": log.codes, "versions": self._coder_indices()}
            save_file({k: np.ascontiguousarray(v) for k, v in tables.items()}, temporary / "codes.safetensors")
            write_json(temporary / "versions.json", [coder.version for coder in self.coders])

    @classmethod
    def load(cls, folder: str | Path) -> DynamicCodes:
        """Read dynamic codes that :meth:`save` wrote.

        Raises:
            ArtifactError: the folder is damaged, or a coder differs from the one that was saved.
        """
        folder = Path(folder)
        made = cls([Coder.load(folder / f"coder-{n}") for n in range(len(read_json(folder / "versions.json")))])
        found, wanted = [coder.version for coder in made.coders], read_json(folder / "versions.json")
        if found != wanted:
            raise ArtifactError(
                "A coder differs from the one that was saved.",
                where=str(folder),
                expected=", ".join(wanted),
                found=", ".join(found),
                fix="restore the folder; codes of another version have a different meaning",
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
                "There is no current coder.",
                where="dynamic codes",
                expected="a fitted coder",
                fix="call use(coder) first",
            )
        return self.coders[-1]

    def _coder_indices(self) -> Array:
        """Return the index (T,) of the coder that assigned each code of the log."""
        return np.concatenate([np.zeros(0, np.int64), *self._versions])
