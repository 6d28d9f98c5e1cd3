"""Base class of coders, which encode vectors as a few small integers and decode them. Each subclass implements how
codes are learnt and assigned."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from taiji.core.artifacts import read_json
from taiji.core.component import as_subclass, find_class
from taiji.core.errors import ArtifactError, InputError
from taiji.core.settings import Settings as Base
from taiji.data.dataset import Dataset
from taiji.models.learnt_component import LearntComponent

Array = NDArray[Any]
GROUP = "taiji.coders"
"""Entry-point group of coders."""
BLOCK = 16_384
"""Number of vectors encoded at a time. This limits memory and does not affect the codes."""


class CoderSettings(Base):
    """Settings shared by coders with the same number of codes on every level."""

    levels: PositiveInt = 3
    """Number of levels. Each item has one code per level, from coarse to fine."""
    size: PositiveInt = 256
    """Number of codes per level."""


class Coder(LearntComponent):
    """Base class of coders. A coder encodes vectors (N, d) as codes (semantic ids): integers (N, L), from coarse to
    fine.

    A coder implements :attr:`sizes`, :attr:`dimension`, :meth:`learn`, :meth:`assign`, :meth:`reconstruct`,
    :meth:`weights` and :meth:`restore`. A fitted coder never changes, so codes of the same :attr:`version` always have
    the same meaning. For a refit, create a new coder; it has a new version.
    """

    # Methods that a coder implements.

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level: ``0 <= codes[:, level] < sizes[level]``."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Width of the vectors."""

    @abstractmethod
    def learn(self, vectors: Array, seed: int, device: str) -> None:
        """Fit to (N, d) finite float64 vectors, N >= 1."""

    @abstractmethod
    def assign(self, vectors: Array) -> Array:
        """Return codes (N, L) of finite float64 vectors (N, d). The codes of a row depend only on that row."""

    @abstractmethod
    def reconstruct(self, codes: Array) -> Array:
        """Return the vectors (N, d) that distinct codes (N, l) of the first l levels represent, 0 <= l <= L."""

    # Methods common to all.

    def fit(self, vectors: Array, *, seed: int = 0, device: str = "cpu") -> Self:
        """Fit the coder to vectors.

        Args:
            vectors: (N, d) finite vectors of the items known at the time of the fit, N >= 1.
            seed: random seed; on a CPU, the same seed gives the same coder.
            device: ``cpu``, ``cuda`` or ``auto``, for coders that compute with torch.

        Raises:
            InputError: there are no vectors, or some are not finite.
        """
        vectors = self._checked(vectors, None)
        if not len(vectors):
            raise InputError(
                "There are no vectors to fit the coder to.",
                where="item vectors",
                expected="at least one vector",
                found="0 rows",
            )
        self.learn(vectors, seed, device)
        return self

    def encode(self, vectors: Array) -> Array:
        """Return the codes (N, L) int64 of vectors (N, d).

        Raises:
            InputError: the vectors have a different width or are not finite.
        """
        vectors = self._checked(vectors, self.dimension)
        parts = [self.assign(vectors[at : at + BLOCK]) for at in range(0, len(vectors), BLOCK)]
        return np.concatenate([np.zeros((0, len(self.sizes)), np.int64), *parts]).astype(np.int64)

    def decode(self, codes: Array) -> Array:
        """Return the vectors (N, d) float64 that codes (N, l) represent. If l < L, the vectors are coarser.

        Raises:
            InputError: there are too many levels, or a code is out of range for its level.
        """
        codes = np.asarray(codes)
        sizes = np.asarray(self.sizes)
        if codes.ndim != 2 or codes.shape[1] > len(sizes) or not np.issubdtype(codes.dtype, np.integer):
            raise InputError(
                "The codes do not match the coder.",
                where="codes",
                expected=f"integers of shape (N, {len(sizes)}), or of fewer levels",
                found=f"{codes.dtype}, shape {codes.shape}",
            )
        wrong = ((codes < 0) | (codes >= sizes[: codes.shape[1]])).any(axis=1)
        if wrong.any():
            raise InputError(
                "A code is out of range for its level.",
                where=f"codes, row {int(wrong.argmax())}",
                expected=f"at least 0 and below {tuple(self.sizes)}",
                found=str(codes[wrong.argmax()].tolist()),
                fix="decode with the coder whose version the codes have",
            )
        distinct, place = codes[:1], np.zeros(len(codes), np.int64)
        if codes.shape[1] and len(codes):
            distinct, inverse = np.unique(codes, axis=0, return_inverse=True)
            place = inverse.ravel()
        return np.asarray(self.reconstruct(distinct.astype(np.int64)), dtype=np.float64)[place]

    def residual_energies(self, vectors: Array) -> Array:
        """Return the mean squared distances (L + 1,) between the vectors and the vectors decoded from their first 0, 1,
        … L codes."""
        vectors = self._checked(vectors, self.dimension)
        codes = self.encode(vectors)
        levels = range(codes.shape[1] + 1)
        return np.asarray([((vectors - self.decode(codes[:, :n])) ** 2).sum(axis=1).mean() for n in levels])

    @classmethod
    def load(cls, folder: str | Path, dataset: Dataset | None = None) -> Self:
        """Read a coder that :meth:`save` wrote. ``Coder.load`` reads coders of any class. ``load`` of a subclass reads
        only coders of that subclass.

        Raises:
            ArtifactError: the folder is damaged, or was written by another version or by a different coder.
        """
        if cls is not Coder:
            return super().load(folder, dataset)
        reference = read_json(Path(folder) / "config.json").get("class")
        if not isinstance(reference, str):
            raise ArtifactError(
                "This folder does not contain a coder.",
                where=str(folder),
                expected="config.json with the coder's class",
                found=repr(reference),
                fix="fit the coder again",
            )
        found: Any = coder_class(reference, str(folder))
        return found.load(folder, dataset)  # type: ignore[no-any-return]

    def _checked(self, vectors: Array, dimension: int | None) -> Array:
        vectors = np.asarray(vectors, dtype=np.float64)
        fits = vectors.ndim == 2 and dimension in (None, vectors.shape[1]) and vectors.shape[1] > 0
        if not fits or not np.isfinite(vectors).all():
            width = "d" if dimension is None else dimension
            raise InputError(
                "The vectors do not match the coder.",
                where="item vectors",
                expected=f"a finite array (N, {width})",
                found=f"shape {vectors.shape}, {int((~np.isfinite(vectors)).sum())} values not finite",
            )
        return vectors


def coder_class(reference: str, where: str = "codes.model") -> type[Coder]:
    """Return the class of a coder by its entry-point name or import path.

    Raises:
        ConfigError: there is no class of this name, or the class is not a coder.
    """
    # The abstract base is used only to check subclasses and is never instantiated.
    return as_subclass(find_class(reference, GROUP, where), Coder, "a coder", where)  # type: ignore[type-abstract]
