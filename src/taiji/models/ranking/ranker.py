"""Base class of neural rankers: training, calibration, prediction, scoring and saving. A model adds its network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from taiji.core.artifacts import atomic_folder, read_json, value_hash
from taiji.core.component import Predictions, Requests, Slate, as_subclass, find_class, pick_device
from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, FieldSet, Layout
from taiji.data.fields import Field, StatisticField
from taiji.data.splits import later_slice
from taiji.data.statistics import NAMES, PastStatistics
from taiji.data.tasks import CONVERSION, Task, check_tasks, last_known
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.inputs import Inputs, RequestState
from taiji.models.ranking.paying_fields import Worth, paying
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import GROUP, NeuralRankerSettings
from taiji.models.ranking.split_inputs import SplitCache
from taiji.models.ranking.training_loop import train
from taiji.nn.devices import on_device
from taiji.nn.losses import MultitaskLoss
from taiji.nn.predictions import predictions

Array = NDArray[Any]
FORMAT = 2
ROWS = 65_536
"""Number of rows converted to arrays at a time, which bounds the memory of a prediction."""
BATCH = 8192
"""Number of rows that pass through the network at a time."""


class Ranker:
    """Ranking model bound to a dataset; see :class:`taiji.core.component.Scorer`.

    A new model is a subclass with a settings class and a network class; see ``docs/extending.md``.

    Attributes:
        settings, tasks, fieldset, network: settings, learnt tasks, fitted fields, and the network.
        inputs: conversion of rows of the dataset into batches.
        calibration: (scale, shift) by task name, see :data:`taiji.nn.predictions.Calibration`.
        history: one entry per validation check, with ``rows`` (training rows seen so far), ``rows_per_second``, and
            ``loss`` (on the validation rows; without such rows, minus ``rows``, so that the latest check is the best).
        worths: measured worth of each field marked ``must_pay``. A field that does not lower the loss enough is removed
            from ``fieldset``.
    """

    Settings: ClassVar[type[NeuralRankerSettings]] = NeuralRankerSettings
    network_class: ClassVar[type[Network[Any]]]
    settings: NeuralRankerSettings
    tasks: tuple[Task, ...]
    fieldset: FieldSet
    network: Network[Any]
    inputs: Inputs
    loss: MultitaskLoss

    def __init__(self, settings: NeuralRankerSettings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.calibration: dict[str, tuple[float, float]] = {}
        self.history: list[dict[str, float]] = []
        self.worths: tuple[Worth, ...] = ()

    # Methods that a model may override.

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[Field]:
        """Return the model's input fields, before they are fitted.

        Args:
            dataset: the tables.
            columns: columns of the training rows.
        """
        return default_fields(dataset, columns, self.settings)

    def check(self, layout: Layout) -> None:
        """Raise ConfigError if settings and inputs do not match."""
        return

    def make_network(self) -> Network[Any]:
        """Return a new network for the layout, the tasks and the settings."""
        return self.network_class(self.layout, sum(task.outputs for task in self.tasks), self.settings)

    def step_loss(
        self, chunk: Arrays, index: NDArray[np.int64], outputs: torch.Tensor, group: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss of a training step. Override this to add loss terms, which may use rows outside the batch.

        Args:
            chunk: rows in memory.
            index: (B,) rows of the batch, as indices into ``chunk``.
            outputs: (B, O) outputs of the network.
            group: (B,) requests of the rows, for pairwise losses.
        """
        return self.loss(outputs, self.step_labels(chunk, index), group)

    def step_labels(self, chunk: Arrays, index: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return the training labels of the rows ``index`` of a chunk, each (B,)."""
        return {name: on_device(chunk.labels[name][index], self.device) for name in self.loss.labels}

    # Training.

    def fit(
        self,
        dataset: Dataset,
        rows: pl.DataFrame,
        *,
        seed: int = 0,
        device: str | None = None,
        valid: pl.DataFrame | None = None,
        until: int | None = None,
    ) -> Self:
        """Train on exposures.

        Args:
            dataset: dataset whose history and past events the model reads, strictly before the time of each row.
            rows: event, user, item, time (microseconds), labels (null if unknown), and columns of context and features.
            seed: random seed of initialisation, shuffling and dropout; on a CPU, the same seed gives the same weights.
            device: device that overrides the one in the settings.
            valid: later exposures for early stopping and calibration; by default the latest ``valid_fraction`` of rows.
            until: use only exposures strictly before this time (microseconds), with their labels as given in ``rows``;
                see :func:`taiji.data.splits.exposures` for labels that mature later.

        Raises:
            InputError: columns are missing, there are no rows, or all rows have the same label or the same time.
        """
        if until is not None:
            rows = rows.filter(pl.col("time") < until)
        tasks = self.learnt_tasks(dataset)
        _check(rows, tasks)
        if valid is None:
            rows, valid = later_slice(rows, self.settings.valid_fraction)
            if rows.is_empty():
                raise InputError(
                    "All exposures have the same time, so no rows remain for training besides the validation rows.",
                    where="exposures",
                    expected="exposures at different times, or separate validation rows",
                    found=f"{len(valid)} rows at one time",
                )
        elif until is not None:
            valid = valid.filter(pl.col("time") < until)
        end = int(rows["time"].max()) + 1  # type: ignore[arg-type]
        fieldset = FieldSet(self.fields(dataset, rows.columns)).fit(dataset, rows, end)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(dataset, fieldset, tasks, device)
            arrays, later = self.inputs.arrays(rows), self.inputs.arrays(valid)
            self._learn(arrays, later, seed)

        def again(fieldset: FieldSet, arrays: Arrays, later: Arrays) -> Ranker:
            other = type(self)(self.settings)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                other.build(dataset, fieldset, tasks, device)._learn(arrays, later, seed)
            return other

        self.__dict__.update(paying(self, arrays, later, again).__dict__)
        return self

    def _learn(self, arrays: Arrays, later: Arrays, seed: int) -> None:
        self.network.prepare(arrays)
        train(self, lambda epoch: [arrays], len(arrays), later if len(later) else None, seed)

    def fit_chunks(
        self,
        dataset: Dataset,
        frames: Callable[[], Iterable[pl.DataFrame]],
        *,
        rows: int,
        until: int,
        seed: int = 0,
        device: str | None = None,
        valid: pl.DataFrame | None = None,
    ) -> Self:
        """Train on more exposures than fit in memory; see :func:`taiji.models.ranking.stream.train_streamed`.

        Args:
            dataset: as for :meth:`fit`.
            frames: function that returns the frames of exposures; the first determines scales and context vocabularies.
            rows: number of rows in all frames.
            until: a time (microseconds) after all exposures.
            seed, device, valid: as for :meth:`fit`; without ``valid``, all epochs are run and nothing is calibrated.
        """
        first = next(iter(frames()))
        _check_columns(first, self.learnt_tasks(dataset))
        fieldset = FieldSet(self.fields(dataset, first.columns)).fit(dataset, first, until, rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(dataset, fieldset, self.learnt_tasks(dataset), device)
            self.network.prepare(self.inputs.arrays(first))

            held_out = self.inputs.arrays(valid) if valid is not None and len(valid) else None
            self.inputs.known_until = last_known(frames(), self.tasks)
            train(self, lambda epoch: map(self.inputs.arrays, frames()), rows, held_out, seed)
            self.inputs.known_until = {}
        return self

    def train_part(self, base: Ranker, rows: pl.DataFrame, extra: Sequence[str], *, prefix: str, seed: int = 0) -> None:
        """Copy the weights of another ranker, and train only the weights whose names begin with ``prefix``.

        Args:
            base: ranker trained without the columns ``extra``; it is not changed.
            rows: exposures with the columns ``extra``.
            extra: columns whose fields are added.
            prefix: prefix of the weights' names.
            seed: as for :meth:`fit`.
        """
        _check(rows, base.tasks)
        rows, valid = later_slice(rows, self.settings.valid_fraction)
        dataset = base.inputs.dataset
        added = [field for field in self.fields(dataset, rows.columns) if field.name in extra]
        for field in added:
            field.fit(dataset, rows, int(rows["time"].max()) + 1)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(dataset, FieldSet([*base.fieldset.fields, *added]), base.tasks)
            arrays = self.inputs.arrays(rows)
            self.network.prepare(arrays)
            self.network.load_state_dict(base.network.state_dict(), strict=False)
            held_out = self.inputs.arrays(valid) if len(valid) else None
            train(self, lambda epoch: [arrays], len(arrays), held_out, seed, part=prefix)

    def build(self, dataset: Dataset, fieldset: FieldSet, tasks: Sequence[Task], device: str | None = None) -> Self:
        """Create the network, with weights drawn from torch's current random state, and bind it to a dataset."""
        self.tasks, self.fieldset = check_tasks(tasks), fieldset
        self.check(self.layout)
        self.device = pick_device(device or self.settings.device)
        self.network = self.make_network().to(self.device)
        self.loss = MultitaskLoss(self.tasks)
        self.calibration = {task.name: (1.0, 0.0) for task in self.tasks}
        self.inputs = Inputs(dataset, fieldset, self.tasks, self.device)
        self._split = SplitCache(self.network, fieldset, self.device)
        return self

    @property
    def layout(self) -> Layout:
        """Description of the inputs."""
        return self.fieldset.layout

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the predictions."""
        return tuple(head for task in self.tasks for head in task.heads)

    @property
    def goal(self) -> str:
        """Name of the prediction that :meth:`score_pairs` returns.

        This is the joint probability of click and conversion (``ctcvr``) or, without a conversion task, the prediction
        of the first task.
        """
        return next((task.heads[-1] for task in self.tasks if task.name == CONVERSION.name), self.tasks[0].name)

    def learnt_tasks(self, dataset: Dataset) -> tuple[Task, ...]:
        """Return the tasks to learn, with their weights from the settings.

        Raises:
            ConfigError: the settings name a label that the dataset does not have.
        """
        known = {task.name: task for task in dataset.tasks}
        unknown = sorted({*(self.settings.tasks or ()), *self.settings.task_weights} - set(known))
        if unknown:
            raise ConfigError(
                "The log has no label of this name.",
                where="ranking.tasks",
                expected=", ".join(known),
                found=", ".join(unknown),
                fix="declare it under `labels:` in the mapping, or remove it from ranking.tasks and ranking.task_weights",
            )
        chosen = [known[name] for name in (self.settings.tasks or known)]
        weights = self.settings.task_weights
        return check_tasks([task.model_copy(update={"weight": weights.get(task.name, task.weight)}) for task in chosen])

    # Prediction.

    def logits(self, arrays: Arrays, batch: int = BATCH) -> NDArray[np.float64]:
        """Return the uncalibrated outputs of the network, (N, O) float64."""
        self.network.eval()
        parts = [np.zeros((0, self.network.outputs))]
        with torch.inference_mode():
            for start in range(0, len(arrays), batch):
                parts.append(
                    self.network(self.inputs.batch(arrays, slice(start, start + batch))).double().cpu().numpy()
                )
        return np.concatenate(parts)

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return calibrated predictions in row order.

        Args:
            exposures: user, item, time (microseconds), and the context and feature columns used in training; a missing
                column or a null means that the value is unknown.

        Returns:
            one column (N,) per head: ``click`` = P(click), ``conversion`` = P(conversion | click), ``ctcvr`` = their
            product, and so on; ``event`` is passed through if the exposures have it.
        """
        parts = [np.zeros((0, self.network.outputs))]
        for start in range(0, len(exposures), ROWS):
            parts.append(self.logits(self.inputs.arrays(exposures.slice(start, ROWS))))
        out = pl.DataFrame(predictions(np.concatenate(parts), self.tasks, self.calibration))
        return pl.concat([exposures.select("event"), out], how="horizontal") if "event" in exposures.columns else out

    def score_pairs(self, users: Array, items: Array, times: Array) -> NDArray[np.float64]:
        """Return the prediction :attr:`goal` of each (user, item, time), (N,) float64.

        Args:
            users, items: dense ids, (N,) each.
            times: microseconds, (N,).
        """
        frame = pl.DataFrame(
            {"user": users, "item": items, "time": times},
            schema={"user": pl.Int64, "item": pl.Int64, "time": pl.Int64},
        )
        return self.predict(frame)[self.goal].to_numpy()

    def encode(self, requests: Requests) -> RequestState:
        """Compute the request side: its inputs and, if the network can be split, the outputs of its request step."""
        state = self.inputs.state(requests)
        self._evaluating()
        split = self._split.get() if self.settings.split_weights else None
        if split is None:
            return state
        with torch.inference_mode():
            parts = [
                split.encode(self.inputs.request_side(state.arrays.take(slice(start, start + BATCH))))
                for start in range(0, max(1, len(state)), BATCH)
            ]
        return replace(state, split=split, hoisted=tuple(torch.cat(kept) for kept in zip(*parts)))

    def score(self, state: RequestState, slate: Slate) -> Predictions:
        """Return the prediction of each head for every position of the slate, each (R, M) float64."""
        requests, places = slate.items.shape
        if requests != len(state):
            raise InputError(
                "The numbers of slates and encoded requests differ.", expected=str(len(state)), found=str(requests)
            )
        self._evaluating()
        parts = [np.zeros((0, self.network.outputs))]
        size = max(1, BATCH // max(1, places))
        with torch.inference_mode():
            for start in range(0, requests if places else 0, size):
                chosen = slice(start, start + size)
                if state.split is None:
                    outputs = self.network(self.inputs.candidates(state, slate, chosen))
                else:
                    batch = self.inputs.candidate_side(state, slate, chosen)
                    outputs = state.split.score([values[chosen] for values in state.hoisted], batch)
                parts.append(outputs.double().cpu().numpy())
        found = predictions(np.concatenate(parts), self.tasks, self.calibration)
        return {head: values.reshape(requests, places) for head, values in found.items()}

    def _evaluating(self) -> None:
        """Switch to evaluation mode; skip the loop over all modules if the network is already in it."""
        if self.network.training:
            self.network.eval()

    def bound_to(self, users: Dataset, statistics: PastStatistics) -> Self:
        """Return the ranker for a dataset with other users and the same items. Weights and encoded items are shared."""
        made = type(self)(self.settings)
        made.__dict__.update(self.__dict__, inputs=self.inputs.bound_to(users, statistics))
        return made

    # Saving.

    @property
    def version(self) -> str:
        """Hash of weights, calibration and settings."""
        tensors = [(k, v.numpy().tobytes().hex()) for k, v in sorted(self._tensors().items())]
        return value_hash([self._config(), tensors])[:16]

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``config.json`` atomically."""
        from safetensors.torch import save_file

        with atomic_folder(folder) as temporary:
            save_file(self._tensors(), temporary / "model.safetensors")
            # The speed differs between runs and is omitted, so that equal rankers give equal bytes.
            history = [
                {name: value for name, value in entry.items() if name != "rows_per_second"} for entry in self.history
            ]
            found = [worth.record() for worth in self.worths]
            text = json.dumps({**self._config(), "history": history, "must_pay": found}, indent=2, sort_keys=True)
            (temporary / "config.json").write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: str | Path, dataset: Dataset, device: str | None = None) -> Ranker:
        """Read a saved ranker of any model and bind it to the dataset of its training, or to a later one.

        Args:
            folder: folder that :meth:`save` wrote.
            dataset: dataset whose users and items are scored; it may have more items than that of the training.
            device: device that overrides the one in the settings.

        Raises:
            ArtifactError: the folder is damaged or was written by another version.
            ConfigError: the class of the model cannot be imported.
        """
        from safetensors.torch import load_file

        config = read_json(Path(folder) / "config.json")
        if config.get("format") != FORMAT or not set(config.get("statistics", ())) <= set(NAMES):
            raise ArtifactError(
                "This version cannot read a ranker from this folder.",
                where=str(folder),
                expected=f"config.json with format {FORMAT} and statistics of this version",
                found=f"format {config.get('format')}",
                fix="train the ranker again",
            )
        try:
            tensors = load_file(Path(folder) / "model.safetensors")
        except Exception as error:
            raise ArtifactError(
                "Could not read the weights.", where=f"{folder}/model.safetensors", found=str(error)
            ) from error
        made = ranker_class(config["class"], where=str(folder))
        try:
            return made._restored(config, tensors, dataset, device)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ArtifactError(
                "The saved ranker is damaged, or was written by another version of its model.",
                where=str(folder),
                found=str(error)[:300],
                fix="train the ranker again",
            ) from error

    @classmethod
    def _restored(
        cls, config: dict[str, Any], tensors: dict[str, torch.Tensor], dataset: Dataset, device: str | None
    ) -> Ranker:
        ranker = cls(cls.Settings.model_validate(config["settings"]))
        fieldset = FieldSet.restore(
            config["fields"], {name: value.numpy() for name, value in tensors.items() if name.startswith("field.")}
        )
        ranker.build(dataset, fieldset, [Task.model_validate(task) for task in config["tasks"]], device)
        ranker.network.load_state_dict(
            {name.removeprefix("network."): v for name, v in tensors.items() if name.startswith("network.")}
        )
        ranker.calibration = {task: (pair[0], pair[1]) for task, pair in config["calibration"].items()}
        ranker.history = config["history"]
        ranker.worths = tuple(Worth(w["field"], w["gain"], w["error"]) for w in config.get("must_pay", ()))
        return ranker

    def _config(self) -> dict[str, Any]:
        kind = type(self)
        return {
            "format": FORMAT,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "settings": self.settings.model_dump(mode="json"),
            "tasks": [task.model_dump(mode="json") for task in self.tasks],
            "fields": self.fieldset.config(),
            "statistics": [field.name for field in self.fieldset.numbers if isinstance(field, StatisticField)],
            "calibration": self.calibration,
        }

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = self.network.state_dict()
        tensors = {f"network.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
        return tensors | {name: torch.from_numpy(value) for name, value in self.fieldset.tensors().items()}


def ranker_class(reference: str, where: str = "ranking.model") -> type[Ranker]:
    """Return the class of a ranking model by its entry-point name or import path.

    Raises:
        ConfigError: no class has this name, or the class is not a ranker.
    """
    return as_subclass(find_class(reference, GROUP, where), Ranker, "a ranking model", where)


def _check_columns(exposures: pl.DataFrame, tasks: Sequence[Task]) -> None:
    needed = ["user", "item", "time", tasks[0].name]
    if set(needed) - set(exposures.columns):
        raise InputError(
            "Columns are missing.",
            where="exposures",
            expected=", ".join(needed),
            found=", ".join(exposures.columns),
        )


def _check(exposures: pl.DataFrame, tasks: Sequence[Task]) -> None:
    _check_columns(exposures, tasks)
    if exposures[tasks[0].name].drop_nulls().n_unique() < 2:
        raise InputError(
            "There is nothing to learn: there are no exposures, or all have the same label.",
            where="exposures",
            expected=f"rows with different values of {tasks[0].name}",
            found=f"{len(exposures)} rows",
            fix="give this period a larger share in split.fractions, or raise data.non_clicks",
        )
