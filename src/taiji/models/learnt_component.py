"""Base class of components that consist of learnt arrays and read no events. It versions, saves and loads them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from taiji.core.artifacts import atomic_folder, read_json, value_hash, write_json
from taiji.core.errors import ArtifactError, ResourceError
from taiji.core.settings import Settings as Base
from taiji.data.dataset import Dataset

Array = NDArray[Any]
FORMAT = 1


def known_values(column: Array) -> list[Any]:
    """Return the distinct values of a column in ascending order, without the missing values None and NaN."""
    return sorted({value for value in column.tolist() if value is not None and value == value})


class LearntComponent(ABC):
    """Component that consists of settings, facts and arrays. A subclass implements :meth:`weights` and :meth:`restore`.

    Attributes:
        settings: settings of the component.
        facts: learnt values that are JSON-serialisable and not arrays.
        dataset: dataset whose columns of items or users the component reads; None if all inputs of the component come
            with the requests.
    """

    Settings: ClassVar[type[Base]] = Base

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.Settings() if settings is None else settings
        self.facts: dict[str, Any] = {}
        self.dataset: Dataset | None = None

    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """Return the learnt arrays."""

    @abstractmethod
    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the component from the arrays that :meth:`weights` returned."""

    @property
    def version(self) -> str:
        """Hash of weights, facts and settings."""
        digest = hashlib.sha256(value_hash(self._config()).encode())
        for name, value in sorted(self.weights().items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json`` atomically."""
        with atomic_folder(folder) as temporary:
            arrays = {name: np.ascontiguousarray(value) for name, value in sorted(self.weights().items())}
            save_file(arrays, temporary / "weights.safetensors")
            write_json(temporary / "config.json", self._config())

    @classmethod
    def load(cls, folder: str | Path, dataset: Dataset | None = None) -> Self:
        """Read a component that :meth:`save` wrote, and bind it to a dataset.

        Raises:
            ArtifactError: the folder is damaged, or was written by another version or model.
            ResourceError: a package that the component needs is not installed.
        """
        folder = Path(folder)
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT or config.get("class") != cls._name():
            raise ArtifactError(
                "This folder does not contain the requested component.",
                where=str(folder),
                expected=f"config.json with format {FORMAT} and class {cls._name()}",
                found=f"format {config.get('format')}, class {config.get('class')}",
                fix="fit the component again",
            )
        try:
            made = cls(cls.Settings.model_validate(config["settings"]))
            made.facts, made.dataset = config["facts"], dataset
            made.restore(load_file(folder / "weights.safetensors"))
        except ResourceError:  # the component needs a package that is not installed
            raise
        except Exception as error:  # a damaged file can raise any error
            raise ArtifactError(
                "A saved component is damaged.", where=str(folder), found=str(error)[:300], fix="fit it again"
            ) from error
        return made

    @classmethod
    def _name(cls) -> str:
        return f"{cls.__module__}:{cls.__qualname__}"

    def _config(self) -> dict[str, Any]:
        settings = self.settings.model_dump(mode="json")
        return {"format": FORMAT, "class": self._name(), "settings": settings, "facts": self.facts}
