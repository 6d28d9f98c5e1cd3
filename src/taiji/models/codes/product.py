"""Product quantiser: encodes a vector as a few small ids, one per part of the vector (Jégou et al. 2011)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.artifacts import atomic_folder, read_json, value_hash
from taiji.core.errors import ArtifactError, InputError
from taiji.core.settings import Settings as Base
from taiji.models.codes.coder import Coder
from taiji.models.codes.kmeans import k_means

Array = NDArray[Any]


class ProductShape(Protocol):
    """Settings that define the shape of a product quantiser."""

    @property
    def slots(self) -> int:
        """Number of ids per vector."""

    @property
    def bits(self) -> int:
        """Number of bits per id."""

    @property
    def iterations(self) -> int:
        """Number of rounds of k-means."""


class ProductSettings(Base):
    """Settings of :class:`ProductCodes`."""

    slots: PositiveInt = 8
    """Number of codes per item, which is the number of parts into which a vector is cut."""
    bits: int = Field(default=6, ge=1, le=12)
    """Number of bits per code. Each part has ``2**bits`` centroids, or fewer if there are fewer training vectors."""
    iterations: PositiveInt = 25
    """Number of rounds of k-means per part."""


@dataclass(frozen=True, eq=False)
class ProductQuantizer:
    """Quantiser that splits a vector into M sub-vectors and encodes each sub-vector as the id of its nearest centroid.

    If M does not divide the width, the vector is padded with zeros. If there are fewer training vectors than centroids,
    the number of centroids is reduced to the number of vectors.

    Attributes:
        centroids: (M, K, w) float32 centroids of each slot.
        dimension: width of the vectors.
    """

    centroids: np.ndarray
    dimension: int

    @classmethod
    def fit(cls, vectors: np.ndarray, settings: ProductShape | None = None, seed: int = 0) -> ProductQuantizer:
        """Learn centroids by k-means in each sub-space.

        Args:
            vectors: (N, d) finite training vectors, N >= 1.
            settings: number of slots M, bits per id, and rounds of k-means.
            seed: random seed of the initial centroids.
        """
        settings = settings or ProductSettings()
        vectors = _checked(vectors, None)
        if not len(vectors):
            raise InputError(
                "There are no vectors to fit the quantiser to.",
                where="features",
                expected="at least one embedding",
                found="0 rows",
            )
        parts = _split(vectors, settings.slots)
        size = min(2**settings.bits, len(vectors))
        centroids = np.zeros((settings.slots, size, parts.shape[2]), dtype=np.float32)
        for slot in range(settings.slots):
            centroids[slot] = k_means(parts[:, slot], size, settings.iterations, seed + slot)
        return cls(centroids, vectors.shape[1])

    @property
    def slots(self) -> int:
        """Number of ids per vector (M)."""
        return self.centroids.shape[0]

    @property
    def codes(self) -> int:
        """Number of centroids per slot (K)."""
        return self.centroids.shape[1]

    @property
    def version(self) -> str:
        """Hash of the centroids, stored with every row of features."""
        return value_hash([self.dimension, self.centroids.shape, self.centroids.tobytes().hex()])[:16]

    def encode(self, vectors: np.ndarray, block: int = 65_536) -> np.ndarray:
        """Encode vectors (N, d) as ids (N, M) uint16. Ties go to the lowest id."""
        parts = _split(_checked(vectors, self.dimension), self.slots)
        ids = np.zeros(parts.shape[:2], dtype=np.uint16)
        norms = (self.centroids.astype(np.float64) ** 2).sum(axis=2)
        for start in range(0, len(parts), block):
            for slot in range(self.slots):
                rows = parts[start : start + block, slot].astype(np.float64)
                ids[start : start + block, slot] = np.argmin(
                    norms[slot] - 2 * rows @ self.centroids[slot].T.astype(np.float64), axis=1
                )
        return ids

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Decode ids (N, M) to vectors (N, d) float32."""
        ids = np.asarray(ids)
        parts = self.centroids[np.arange(self.slots)[None, :], ids]
        return parts.reshape(len(ids), parts.shape[1] * parts.shape[2])[:, : self.dimension]

    def metrics(self, vectors: np.ndarray) -> dict[str, float]:
        """Return measures of how well the ids represent the given vectors.

        Returns:
            ``utilisation`` is the share of the M·K centroids in use. ``distortion`` is the mean squared error divided
            by the mean squared distance from the mean (0 = lossless, 1 = no better than one centroid). ``perplexity``
            is the mean over slots of exp(entropy of the ids). ``collisions`` is the share of the distinct vectors that
            have the same ids as another distinct vector.
        """
        vectors = _checked(vectors, self.dimension)
        ids = self.encode(vectors)
        used = [np.unique(ids[:, slot], return_counts=True)[1] for slot in range(self.slots)]
        entropy = [-float((n / n.sum() * np.log(n / n.sum())).sum()) for n in used]
        spread = float(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
        distinct, first = np.unique(vectors, axis=0, return_index=True)
        _, counts = np.unique(ids[first], axis=0, return_counts=True)
        error = float(((vectors - self.decode(ids)) ** 2).sum(axis=1).mean())
        return {
            "utilisation": sum(len(n) for n in used) / (self.slots * self.codes),
            "distortion": error / spread if spread > 0 else 0.0,
            "perplexity": float(np.mean(np.exp(entropy))),
            "collisions": float(counts[counts > 1].sum() / len(distinct)),
        }

    def save(self, folder: str | Path) -> None:
        """Write ``quantizer.safetensors`` and ``config.json`` atomically."""
        from safetensors.numpy import save_file

        with atomic_folder(folder) as temporary:
            save_file({"centroids": np.ascontiguousarray(self.centroids)}, temporary / "quantizer.safetensors")
            config = {
                "format": 1,
                "dimension": self.dimension,
                "slots": self.slots,
                "codes": self.codes,
                "version": self.version,
            }
            (temporary / "config.json").write_text(
                json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
            )

    @classmethod
    def load(cls, folder: str | Path) -> ProductQuantizer:
        """Read a saved quantiser, and verify that its content matches the saved version."""
        from safetensors.numpy import load_file

        config = read_json(Path(folder) / "config.json")
        try:
            quantizer = cls(load_file(Path(folder) / "quantizer.safetensors")["centroids"], int(config["dimension"]))
        except Exception as error:
            raise ArtifactError(
                "Could not read the quantiser.", where=f"{folder}/quantizer.safetensors", found=str(error)
            ) from error
        if quantizer.version != config["version"]:
            raise ArtifactError(
                "The content of the quantiser does not match its version.",
                where=str(folder),
                expected=config["version"],
                found=quantizer.version,
            )
        return quantizer


class ProductCodes(Coder):
    """Coder that wraps a :class:`ProductQuantizer`. The codes of an item are the ids of its vector.

    The levels are the parts of the vector. None of them is coarser than another.
    """

    Settings: ClassVar[type[Base]] = ProductSettings
    settings: ProductSettings
    quantizer: ProductQuantizer

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of centroids of each part."""
        return (self.quantizer.codes,) * self.quantizer.slots

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.quantizer.dimension

    def learn(self, vectors: Array, seed: int, device: str) -> None:
        """Fit the quantiser."""
        self.quantizer = ProductQuantizer.fit(vectors, self.settings, seed)
        self.facts = {"dimension": self.quantizer.dimension}

    def assign(self, vectors: Array) -> Array:
        """Return the index (N, M) of the nearest centroid of each part."""
        return self.quantizer.encode(vectors)

    def reconstruct(self, codes: Array) -> Array:
        """Return vectors (N, d) made of the centroids of the first l parts and, for each further part, the mean of its
        centroids."""
        whole = np.tile(self.quantizer.centroids.mean(axis=1), (len(codes), 1, 1))
        for slot in range(codes.shape[1]):
            whole[:, slot] = self.quantizer.centroids[slot, codes[:, slot]]
        return whole.reshape(len(codes), whole.shape[1] * whole.shape[2])[:, : self.dimension]

    def weights(self) -> dict[str, Array]:
        """Return the centroids (M, K, w)."""
        return {"centroids": self.quantizer.centroids}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the centroids. The width of the vectors is stored in ``facts``."""
        self.quantizer = ProductQuantizer(weights["centroids"], int(self.facts["dimension"]))


def _checked(vectors: np.ndarray, dimension: int | None) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or (dimension is not None and vectors.shape[1] != dimension) or not np.isfinite(vectors).all():
        expected = f"a finite array (N, {dimension if dimension is not None else 'd'})"
        found = f"shape {vectors.shape}, {int((~np.isfinite(vectors)).sum())} values not finite"
        raise InputError("The embeddings do not match the quantiser.", where="features", expected=expected, found=found)
    return vectors


def _split(vectors: np.ndarray, slots: int) -> np.ndarray:
    """Split vectors (N, d) into parts (N, M, w); the last parts are padded with zeros."""
    width = -(-vectors.shape[1] // slots)
    padded = np.zeros((len(vectors), slots * width), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded.reshape(len(vectors), slots, width)
