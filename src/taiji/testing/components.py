"""Checks of components that can be fitted, saved and loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import Component
from taiji.data.dataset import Dataset

C = TypeVar("C", bound=Component[Any])
Answer = NDArray[Any]


def check_component(component: C, dataset: Dataset, answer: Callable[[C], Answer]) -> None:
    """Check that a component survives saving and loading: same version, same output, same bytes.

    Args:
        component: a fitted component.
        dataset: dataset of the component.
        answer: function that computes an array with the component.
    """
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first", Path(name) / "second"
        component.save(first)
        loaded = type(component).load(first, dataset)
        assert loaded.version == component.version, f"version {component.version} came back as {loaded.version}"
        np.testing.assert_array_equal(answer(loaded), answer(component), "results differ after loading")
        loaded.save(second)
        for path in sorted(p for p in first.rglob("*") if p.is_file()):
            twin = second / path.relative_to(first)
            assert twin.exists() and twin.read_bytes() == path.read_bytes(), (
                f"{path.name} was not written byte for byte"
            )
        pickled = [path.name for path in first.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".joblib")]
        assert not pickled, f"pickle in a saved component: {pickled}"


def check_deterministic(fit: Callable[[int], C]) -> None:
    """Check that equal seeds give the same component version, and different seeds different versions.

    Args:
        fit: function from a seed to a component trained on a CPU.
    """
    first = fit(1).version
    again = fit(1).version
    assert first == again, f"the same seed gave {first} and {again}"
    other = fit(2).version
    assert first != other, "a different seed gave the same version: nothing is random, or the seed is not used"
