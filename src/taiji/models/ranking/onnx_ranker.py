"""External ranker in an ONNX file, run by onnxruntime on the CPU."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from taiji.core.artifacts import file_hash
from taiji.core.errors import InputError, ResourceError
from taiji.core.optional import needs
from taiji.data.dataset import Dataset
from taiji.models.ranking.external import EPOCH, ExternalRanker
from taiji.models.ranking.onnx_output import Output, choose_output, read_scores
from taiji.models.ranking.settings import ExternalSettings

log = logging.getLogger(__name__)
AS_OF = "tensor(int64)"
"""Type of the input ``as_of``: microseconds since the epoch do not fit into 32 bits."""


class OnnxRanker(ExternalRanker):
    """Ranker in an ONNX file with the inputs ``user_id``, ``item_id`` and optionally ``as_of`` (int64 microseconds).

    Ids may be int64, int32 or string, and each input has shape (N,) or (N, 1). The output with the score is chosen by
    :func:`taiji.models.ranking.onnx_output.choose_output`.
    """

    INPUTS = ("user_id", "item_id", "as_of")
    KINDS: ClassVar = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(string)": np.str_}

    def __init__(self, dataset: Dataset, path: str | Path, settings: ExternalSettings | None = None) -> None:
        super().__init__(dataset, settings)
        self.source = str(path)
        with needs("onnx", where=self.source):
            import onnxruntime
        try:
            self.session = onnxruntime.InferenceSession(self.source, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ResourceError("Could not open the ONNX file.", where=self.source, found=str(error)[:300]) from error
        self.inputs = self.session.get_inputs()
        kinds = {entry.name: entry.type for entry in self.inputs}
        if (
            not {"user_id", "item_id"} <= set(kinds) <= set(self.INPUTS)
            or set(kinds.values()) - set(self.KINDS)
            or kinds.get("as_of", AS_OF) != AS_OF
        ):
            raise InputError(
                "The inputs of the ONNX file are not those of a pair scorer.",
                where=self.source,
                expected="user_id and item_id of type int64, int32 or string, and optionally as_of of type int64",
                found=", ".join(f"{name}: {kind}" for name, kind in kinds.items()),
            )
        outputs = [Output(entry.name, entry.type, tuple(entry.shape or ())) for entry in self.session.get_outputs()]
        self.output = choose_output(outputs, self.source)
        self._outside = False
        self.version = file_hash(path)[:16]

    def _unfit(self, entry: Any, example: Any) -> InputError:
        return InputError(
            "The ids do not have the type of the ONNX file's input.",
            where=f"{self.source}, input {entry.name}",
            expected=entry.type,
            found=f"for example {example!r}",
        )

    def ask(self, users: list[Any], items: list[Any], instants: list[datetime]) -> Any:
        """Run the graph, and return the scores, (N,) float64."""
        micros = [(instant - EPOCH) // timedelta(microseconds=1) for instant in instants]
        values = dict(zip(self.INPUTS, (users, items, micros)))
        feed = {}
        for entry in self.inputs:
            given = np.asarray(values[entry.name])
            try:
                array = given.astype(self.KINDS[entry.type])
            except (TypeError, ValueError) as error:
                raise self._unfit(entry, given[0]) from error
            changed = given.dtype.kind in "iuf" and array.dtype.kind == "i" and array != given
            if np.any(changed):
                raise self._unfit(entry, given[changed][0])
            feed[entry.name] = array.astype(object) if array.dtype.kind == "U" else array
            if len(entry.shape) == 2:
                feed[entry.name] = feed[entry.name].reshape(-1, 1)
        try:
            answer = self.session.run([self.output.name], feed)[0]
        except Exception as error:
            raise ResourceError("The ONNX ranker failed.", where=self.source, found=str(error)[:300]) from error
        scores = read_scores(self.output, answer, len(users), self.source)
        if not self._outside and scores.size and not (scores.min() >= 0 and scores.max() <= 1):
            self._outside = True
            log.warning(
                "%s: the output %s is not a probability (for example %.4g). It can order items, but its averages are not rates of clicks or conversions.",
                self.source,
                self.output.name,
                float(scores[np.argmax(np.abs(scores))]),
            )
        return scores
