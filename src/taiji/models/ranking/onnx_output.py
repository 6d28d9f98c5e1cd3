"""Choice and reading of the ONNX output that holds the score of a pair.

Classifiers exported by skl2onnx and onnxmltools (LightGBM, XGBoost) have an integer output with labels and an output
with probabilities. The probabilities are a matrix with one column per class or, if the graph ends in ``ZipMap``, a
sequence of maps from class to probability. Regressors and torch models have one float output of any name. A label is
never used as a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
NAMED = ("ctcvr", "score")
"""Output names that always denote the score."""
FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
MAPS = ("seq(map(int64,tensor(float)))", "seq(map(int64,tensor(double)))", "seq(map(string,tensor(float)))")
TWO_CLASSES = 2
ROUNDING = 1e-3
"""Tolerance for float16 rounding in the sum of two probabilities and in their range [0, 1]."""


@dataclass(frozen=True)
class Output:
    """Output of an ONNX graph.

    Attributes:
        name: name of the output.
        kind: type, as written by onnxruntime.
        shape: size of each dimension; a string or None for a variable size.
    """

    name: str
    kind: str
    shape: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} {list(self.shape)}"

    @property
    def may_score(self) -> bool:
        """True if the type and the shape of the output allow one score per pair."""
        if self.kind in MAPS:
            return True
        wide = self.shape[1] if len(self.shape) == TWO_CLASSES else 1
        return (
            self.kind in FLOATS
            and len(self.shape) <= TWO_CLASSES
            and (not isinstance(wide, int) or wide <= TWO_CLASSES)
        )

    @property
    def is_probability(self) -> bool:
        """True if the output's name or type marks it as a probability."""
        return self.kind in MAPS or "prob" in self.name.lower() or self.name == NAMED[0]


def choose_output(outputs: Sequence[Output], where: str) -> Output:
    """Return the output with the score: the output named ``ctcvr`` or ``score``, otherwise the only possible output.

    Raises:
        InputError: no output can be the score (there are only labels, or more than two classes), or several can be.
    """
    named = [output for name in NAMED for output in outputs if output.name == name]
    possible = named[:1] if named else [output for output in outputs if output.may_score]
    if len(possible) == 1 and possible[0].may_score:
        return possible[0]
    raise InputError(
        "Several outputs of the ONNX file could be the score." if len(possible) > 1 else "The ONNX file has no score.",
        where=where,
        expected="one float output of shape (N,), (N, 1), or (N, 2) for two classes; or one named ctcvr or score",
        found="; ".join(map(str, outputs)),
        fix="name the output `score` when exporting, or export only the probabilities; integers are labels and are never used as scores",
    )


def read_scores(output: Output, answer: Any, pairs: int, where: str) -> Array:
    """Return the scores (N,) from the value of an output; for two classes, the probability of the positive class.

    Args:
        output: the output with the score.
        answer: its value, as returned by onnxruntime.
        pairs: expected number N of scores.
        where: name of the file, for messages.

    Raises:
        InputError: the shape is wrong, there are not exactly two classes, two columns do not sum to 1, or a probability
            is outside [0, 1].
    """
    found = _of_maps(output, answer, where) if output.kind in MAPS else np.asarray(answer, dtype=np.float64)
    probability = output.is_probability
    if found.ndim == TWO_CLASSES and found.shape == (pairs, TWO_CLASSES):
        if np.abs(found.sum(axis=1) - 1).max(initial=0.0) > ROUNDING:
            raise _wrong(output, where, "two columns that sum to 1, negative class first", _example(found))
        found, probability = found[:, 1], True
    elif found.ndim == TWO_CLASSES and found.shape != (pairs, 1):
        raise _wrong(output, where, f"shape ({pairs},), ({pairs}, 1) or ({pairs}, 2)", f"shape {found.shape}")
    found = found.reshape(-1)
    if probability and len(found) and not (found.min() >= -ROUNDING and found.max() <= 1 + ROUNDING):
        raise _wrong(output, where, "probabilities from 0 to 1", f"{found.min():.4g} to {found.max():.4g}")
    return found


def _of_maps(output: Output, answer: Sequence[dict[Any, float]], where: str) -> Array:
    """Return probabilities (N, 2) from a sequence of maps from class to probability, positive class last."""
    classes = sorted({name for pair in answer for name in pair}, key=_number)
    if len(answer) and (len(classes) != TWO_CLASSES or any(np.isnan(_number(name)) for name in classes)):
        raise _wrong(output, where, "two classes that are numbers, the positive one larger", f"classes {classes[:5]}")
    return np.array([[pair.get(name, 0.0) for name in classes] for pair in answer], dtype=np.float64).reshape(
        -1, TWO_CLASSES
    )


def _number(name: Any) -> float:
    try:
        return float(name)
    except ValueError:
        return float("nan")


def _example(found: Array) -> str:
    return "for example " + ", ".join(f"{value:.4g}" for value in found[0])


def _wrong(output: Output, where: str, expected: str, found: str) -> InputError:
    return InputError(
        "The output of the ONNX file cannot be read as a score.",
        where=f"{where}, output {output.name}",
        expected=expected,
        found=found,
        fix="export one column, the probability of the positive class, named `score`",
    )
