"""Peers of ``benchmarks.ranking``: logistic regression, LightGBM, and DIN and DCN of torch-rechub.

All of them get the inputs of the built-in ranker for the same rows: point-in-time numbers, ids (for LightGBM, only
those of users), categories, user profile and, for DIN and DCN, history. A peer is a function from (rows, configuration)
to the click scores of the test rows.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taiji.data.field_set import Arrays
from taiji.models.ranking.inputs import Inputs


@dataclass
class Rows:
    """Rows of one fold: for training (``fit``), later ones for early stopping (``stop``), and for the evaluation
    (``test``)."""

    fit: Arrays
    stop: Arrays
    test: Arrays
    inputs: Inputs


def logistic_regression(rows: Rows, configuration: dict[str, Any]) -> np.ndarray:
    """Run scikit-learn's logistic regression on one-hot inputs: quantile bins of the numbers, categories, the
    user's profile, item and user."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    cut = quantile_cuts(rows.fit.numbers)
    encoder = OneHotEncoder(handle_unknown="ignore")

    def table(arrays: Arrays) -> np.ndarray:
        columns, _ = columns_of(rows.inputs, arrays)
        numbers = bins(arrays.numbers, cut)
        return (
            numbers
            if configuration.get("numbers_only")
            else np.concatenate([numbers, np.stack(list(columns.values()), axis=1)], axis=1)
        )

    model = LogisticRegression(max_iter=200, solver="lbfgs", C=configuration["C"])
    model.fit(encoder.fit_transform(table(rows.fit)), rows.fit.labels["click"])
    return model.predict_proba(encoder.transform(table(rows.test)))[:, 1]


def lightgbm(rows: Rows, configuration: dict[str, Any]) -> np.ndarray:
    """Run LightGBM with early stopping. Its inputs are the numbers and, as categorical columns, categories, profile and
    user."""
    import lightgbm as lgb

    configuration = dict(configuration)
    numbers_only = configuration.pop("numbers_only", False)

    def table(arrays: Arrays) -> np.ndarray:
        columns, _ = columns_of(rows.inputs, arrays)
        if numbers_only:
            return arrays.numbers
        return np.concatenate(
            [arrays.numbers, np.stack([v for k, v in columns.items() if k != "item"], axis=1)], axis=1
        )

    train = table(rows.fit)
    categorical = list(range(rows.fit.numbers.shape[1], train.shape[1]))
    data = lgb.Dataset(train, rows.fit.labels["click"], categorical_feature=categorical)
    stop = lgb.Dataset(table(rows.stop), rows.stop.labels["click"], reference=data, categorical_feature=categorical)
    settings = {
        "objective": "binary",
        "verbose": -1,
        "seed": 0,
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "cat_smooth": 50,
    }
    settings |= {"min_data_in_leaf": 100, "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1}
    model = lgb.train(
        settings | configuration, data, 2000, valid_sets=[stop], callbacks=[lgb.early_stopping(50, verbose=False)]
    )
    return np.asarray(model.predict(table(rows.test)))


def deep(kind: str, rows: Rows, configuration: dict[str, Any], seed: int = 0) -> np.ndarray:
    """Run DIN or DCN of torch-rechub with its own trainer, and with the early stopping of the built-in ranker: two
    checks per pass, and an end after two checks without improvement."""
    peer = DeepPeer(kind, rows, configuration, seed)
    best, worse, state = np.inf, 0, peer.model.state_dict()
    order = np.random.default_rng(seed)
    for _ in range(configuration.get("epochs", 6)):
        shuffled = order.permutation(len(rows.fit))
        for half in np.array_split(shuffled, 2):
            peer.train(half)
            p = np.clip(peer.predict(rows.stop), 1e-7, 1 - 1e-7)
            loss = -float(np.mean(np.where(rows.stop.labels["click"] == 1, np.log(p), np.log(1 - p))))
            if loss < best:
                best, worse, state = loss, 0, {name: value.clone() for name, value in peer.model.state_dict().items()}
            else:
                worse += 1
        if worse >= 2:
            break
    peer.model.load_state_dict(state)
    return peer.predict(rows.test)


class DeepPeer:
    """Model of torch-rechub with its trainer. By default it is fed ready batches, because the library's own loader
    makes one row at a time."""

    def __init__(self, kind: str, rows: Rows, configuration: dict[str, Any], seed: int = 0) -> None:
        from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
        from torch_rechub.models.ranking import DCN, DIN
        from torch_rechub.trainers import CTRTrainer

        torch.manual_seed(seed)
        self.kind, self.rows, self.batch = kind, rows, configuration["batch"]
        width = configuration["dimension"]
        self.cuts = quantile_cuts(rows.fit.numbers)
        self.mean, self.spread = rows.fit.numbers.mean(axis=0), rows.fit.numbers.std(axis=0) + 1e-6
        _, sizes = columns_of(rows.inputs, rows.fit.take(np.arange(1)))
        self.kind_of_item = rows.inputs.fields.categories("item")[-1].name
        of_target = ("item", self.kind_of_item)
        target = [SparseFeature(name, size, embed_dim=width) for name, size in sizes.items() if name in of_target]
        others = [SparseFeature(name, size, embed_dim=width) for name, size in sizes.items() if name not in of_target]
        pooling = "concat" if kind == "DIN" else "mean"
        history = [
            SequenceFeature(
                f"past_{name}", sizes[name], embed_dim=width, pooling=pooling, shared_with=name, padding_idx=0
            )
            for name in of_target
        ]
        dropout = configuration.get("dropout", 0.1)
        if kind == "DIN":
            others += [
                SparseFeature(f"n{place}", self.cuts.shape[1] + 2, embed_dim=width)
                for place in range(rows.fit.numbers.shape[1])
            ]
            self.model: torch.nn.Module = DIN(
                others, history, target, {"dims": [128, 64], "dropout": dropout}, {"dims": [36], "use_softmax": False}
            )
        else:
            numbers = [DenseFeature("numbers", rows.fit.numbers.shape[1])]
            columns = numbers if configuration.get("numbers_only") else [*others, *target, *history, *numbers]
            self.model = DCN(columns, 3, {"dims": [128, 64], "dropout": dropout, "activation": "relu"})
        rates = {"lr": configuration["lr"], "weight_decay": configuration.get("weight_decay", 1e-5)}
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer = CTRTrainer(self.model, optimizer_params=rates, n_epoch=1, device="cpu")

    def inputs(self, arrays: Arrays, index: np.ndarray) -> dict[str, torch.Tensor]:
        part = arrays.take(index)
        codes = self.rows.inputs.item_codes
        columns, _ = columns_of(self.rows.inputs, part)
        history = part.sequences["history"]
        out = columns | {"past_item": codes[history, 0], f"past_{self.kind_of_item}": codes[history, -1]}
        if self.kind == "DIN":
            out |= {f"n{place}": column for place, column in enumerate(bins(part.numbers, self.cuts).T)}
        else:
            out["numbers"] = (part.numbers - self.mean) / self.spread
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in out.items()}

    def loader(self, index: np.ndarray) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for start in range(0, len(index), self.batch):
            part = index[start : start + self.batch]
            yield self.inputs(self.rows.fit, part), torch.from_numpy(self.rows.fit.labels["click"][part])

    def shipped_loader(self, index: np.ndarray) -> Any:
        """Return the data loader of torch-rechub for these rows."""
        from torch_rechub.utils.data import DataGenerator

        x = {name: value.numpy() for name, value in self.inputs(self.rows.fit, index).items()}
        y = self.rows.fit.labels["click"][index]
        generator = DataGenerator(x, y)
        return generator.generate_dataloader(x_val=x, y_val=y, x_test=x, y_test=y, batch_size=self.batch)[0]

    def train(self, index: np.ndarray) -> None:
        """Train one pass over the rows, as ready batches."""
        self.train_from(self.loader(index))

    def train_from(self, loader: Any) -> None:
        """Train one pass with torch-rechub's own trainer."""
        with contextlib.redirect_stderr(io.StringIO()):
            self.trainer.train_one_epoch(loader, log_interval=1_000_000)

    def predict(self, arrays: Arrays) -> np.ndarray:
        self.model.eval()
        with torch.inference_mode():
            parts = [
                self.model(self.inputs(arrays, np.arange(a, min(a + 8192, len(arrays))))).numpy()
                for a in range(0, len(arrays), 8192)
            ]
        return np.concatenate(parts).astype(np.float64)


def columns_of(inputs: Inputs, arrays: Arrays) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the categorical columns of rows, and their vocabulary sizes: user, item, category levels, profile
    values."""
    fields = inputs.fields
    columns = {"user": inputs.user_codes[arrays.user, 0], "item": inputs.item_codes[arrays.item, 0]}
    sizes = {"user": len(fields.user_id.vocabulary), "item": len(fields.item_id.vocabulary)}
    for place, level in enumerate(fields.categories("item"), start=1):
        columns[level.name], sizes[level.name] = inputs.item_codes[arrays.item, place], len(level.vocabulary)
    (profile,) = fields.categories("user")
    for place in range(len(profile.names)):
        columns[f"profile{place}"] = inputs.user_codes[arrays.user, 1 + place]
        sizes[f"profile{place}"] = len(profile.vocabulary)
    return columns, sizes


def quantile_cuts(numeric: np.ndarray, number: int = 19) -> np.ndarray:
    """Return the inner quantiles of each of the F columns, (F, number)."""
    return np.quantile(numeric[:: max(1, len(numeric) // 100_000)], np.linspace(0, 1, number + 2)[1:-1], axis=0).T


def bins(numeric: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return the indices of the bins (N, F) of numbers (N, F)."""
    return np.stack([np.searchsorted(cut, column, side="left") for cut, column in zip(cuts, numeric.T)], axis=1).astype(
        np.int64
    )
