"""A trained ranker bound to a data set: predict, score, save, load."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from taiji.core.artifacts import atomic_folder, read_json, value_hash
from taiji.core.errors import TaijiError
from taiji.data.statistics import NAMES, NumericFeatures
from taiji.models.ranking.batches import Arrays, Batches
from taiji.models.ranking.encoder import Encoder
from taiji.models.ranking.model import RankerModel, Sizes
from taiji.models.ranking.settings import RankerSettings

ROWS = 65_536
"""Rows turned into arrays at a time; bounds the memory of a prediction."""


class Ranker:
    """Click, conversion and CTCVR of exposures.

    Attributes:
        settings, encoder, model, batches: what it was trained with, and its binding to the data set.
        calibration: ``{"click": (scale, shift), "conversion": (scale, shift)}`` applied to the logits.
        history: one entry a validation check: rows seen, validation loss, samples a second.
    """

    def __init__(self, settings: RankerSettings, encoder: Encoder, model: RankerModel, batches: Batches) -> None:
        self.settings, self.encoder, self.model, self.batches = settings, encoder, model, batches
        self.calibration: dict[str, tuple[float, float]] = {"click": (1.0, 0.0), "conversion": (1.0, 0.0)}
        self.history: list[dict[str, float]] = []

    @classmethod
    def new(
        cls, dataset: Any, encoder: Encoder, settings: RankerSettings, numeric: NumericFeatures | None = None
    ) -> Ranker:
        """An untrained ranker; weights come from torch's current random state."""
        sizes = Sizes(
            users=len(encoder.users),
            items=len(encoder.items),
            levels=tuple(len(level) for level in encoder.levels),  # type: ignore[arg-type]
            profile=len(encoder.profile),
            profile_columns=max(1, len(encoder.profile_columns)),
            numeric=len(NAMES),
            id_slots=encoder.id_slots,
            id_codes=encoder.id_codes,
            vector_width=encoder.vector_width,
            neighbour=encoder.uses_neighbour,
        )
        return cls(settings, encoder, RankerModel(sizes, settings), Batches(dataset, encoder, settings, numeric))

    @property
    def version(self) -> str:
        """Hash of weights, calibration and settings."""
        return value_hash(
            [self._config(), [(k, v.numpy().tobytes().hex()) for k, v in sorted(self._tensors().items())]]
        )[:16]

    def logits(self, arrays: Arrays, batch: int = 8192) -> tuple[np.ndarray, np.ndarray]:
        """Uncalibrated logits of click and conversion, (N,) float64 each."""
        self.model.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(arrays), batch):
                outputs = self.model(self.batches.batch(arrays, slice(start, start + batch)))
                parts.append(torch.stack(outputs).double().numpy())
        both = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0))
        return both[0], both[1]

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Calibrated probabilities in row order.

        Args:
            exposures: user, item, time (microseconds), and the feature columns the ranker was trained with; a missing
                column or a null means "no features for this row".

        Returns:
            (N,) ``click`` = P(click), ``conversion`` = P(conversion | click), ``ctcvr`` = their product; ``event`` is
            passed through where there is one.
        """
        parts = [
            self.logits(self.batches.arrays(exposures.slice(start, ROWS))) for start in range(0, len(exposures), ROWS)
        ]
        logits = [np.concatenate([part[task] for part in parts]) if parts else np.zeros(0) for task in (0, 1)]
        click, conversion = (
            _sigmoid(values, self.calibration[task]) for values, task in zip(logits, ("click", "conversion"))
        )
        out = pl.DataFrame({"click": click, "conversion": conversion, "ctcvr": click * conversion})
        return pl.concat([exposures.select("event"), out], how="horizontal") if "event" in exposures.columns else out

    def score(self, users: np.ndarray, items: np.ndarray, as_ofs: np.ndarray) -> np.ndarray:
        """CTCVR of (user, item, moment), all (N,) dense ids and microseconds, as (N,) float64."""
        frame = pl.DataFrame(
            {"user": users, "item": items, "time": as_ofs},
            schema={"user": pl.Int64, "item": pl.Int64, "time": pl.Int64},
        )
        return self.predict(frame)["ctcvr"].to_numpy()

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``config.json`` atomically."""
        from safetensors.torch import save_file

        with atomic_folder(folder) as temporary:
            save_file(self._tensors(), temporary / "model.safetensors")
            # Speed belongs to the machine, not to the ranker: equal rankers give equal bytes.
            history = [
                {name: value for name, value in entry.items() if name != "rows_per_second"} for entry in self.history
            ]
            text = json.dumps({**self._config(), "history": history}, indent=2, sort_keys=True)
            (temporary / "config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, dataset: Any, numeric: NumericFeatures | None = None) -> Ranker:
        """Read a saved ranker and bind it to a data set (the same one, or a later one with more users and items).

        Args:
            folder: what :meth:`save` wrote. dataset: to score. numeric: statistics of ``dataset`` if built before.
        """
        from safetensors.torch import load_file

        config = read_json(Path(folder) / "config.json")
        if config.get("format") != 1 or config.get("numeric") != list(NAMES):
            raise TaijiError(
                "This folder is no ranker this version can read.",
                where=str(folder),
                expected="config.json with format 1 and the numeric features of this version",
                found=f"format {config.get('format')}",
                fix="train the ranker again",
            )
        try:
            tensors = load_file(Path(folder) / "model.safetensors")
        except Exception as error:
            raise TaijiError(
                "Could not read the weights.", where=f"{folder}/model.safetensors", found=str(error)
            ) from error
        encoder = Encoder.restore(
            config["encoder"],
            {name: value.numpy() for name, value in tensors.items() if name.startswith("vocabulary.")},
        )
        ranker = cls.new(dataset, encoder, RankerSettings(**config["settings"]), numeric)
        ranker.model.load_state_dict(
            {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
        )
        ranker.calibration = {task: (pair[0], pair[1]) for task, pair in config["calibration"].items()}
        ranker.history = config["history"]
        return ranker

    def _config(self) -> dict[str, Any]:
        return {
            "format": 1,
            "numeric": list(NAMES),
            "settings": self.settings.model_dump(mode="json"),
            "encoder": self.encoder.config(),
            "sizes": dataclasses.asdict(self.model.sizes),
            "calibration": self.calibration,
        }

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"model.{name}": value.detach().contiguous() for name, value in self.model.state_dict().items()}
        return tensors | {name: torch.from_numpy(value) for name, value in self.encoder.tensors().items()}


def _sigmoid(logits: np.ndarray, pair: tuple[float, float]) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(pair[0] * logits + pair[1], -40, 40)))
