"""Import of the features of another run, translated to the dense user and item ids of this run, and their join with
requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.artifacts import read_json, write_json, write_parquet
from taiji.core.component import Requests
from taiji.core.errors import ConfigError
from taiji.core.file_state import State, file_state
from taiji.core.manifests import MANIFEST, Verifier
from taiji.data.dataset import Dataset
from taiji.features.feature_table import FEATURES, SCHEMA, feature_metrics, join_features

SETTING = "recommend.features"
TABLE, ABOUT = "features.parquet", "features.json"
"""Names of the files that :class:`StoredFeatures` writes into a folder."""
STAGES = ("data", "examples", "features")
"""Stages of the other run that are read."""
TEXT_IDS = {"user": "user_id", "item": "item_id"}


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """Imported features that a run's ranker reads.

    Attributes:
        table: result of :func:`import_table`.
        columns: names of the feature columns of the table.
        about: provenance of the features by name: ``run``, ``model_version``, ``quantizer_version``, ``rows``,
            ``users``, …
    """

    table: pl.DataFrame
    columns: tuple[str, ...]
    about: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the table and its provenance."""
        write_parquet(folder / TABLE, self.table)
        write_json(folder / ABOUT, {**self.about, "columns": list(self.columns)})

    @classmethod
    def load(cls, folder: Path) -> StoredFeatures | None:
        """Read the files that :meth:`save` wrote; None if there are none."""
        if not (folder / ABOUT).is_file():
            return None
        about = read_json(folder / ABOUT)
        return cls(pl.read_parquet(folder / TABLE), tuple(about["columns"]), about)

    def made_before(self, time: int) -> StoredFeatures:
        """Return the features without the rows that have inputs at or after a time (in microseconds)."""
        return replace(self, table=self.table.filter(pl.col("as_of") <= time))

    def joined_to(self, requests: Requests) -> Requests:
        """Return the requests with the features as further list columns. Each request gets the latest features of its
        user that became available strictly before the request."""
        joined = self._joined(requests)
        lists = {name: np.empty(len(requests), dtype=object) for name in self.columns}
        for name, values in lists.items():
            values[:] = joined[name].to_list()
        return Requests(requests.user, requests.time, {**requests.columns, **lists})

    def metrics_of(self, requests: Requests) -> dict[str, float]:
        """Return the coverage and freshness of the features for the requests, with the metrics of
        :func:`taiji.features.feature_table.feature_metrics`."""
        return feature_metrics(self._joined(requests))

    def _joined(self, requests: Requests) -> pl.DataFrame:
        asked = pl.DataFrame({"user": requests.user, "time": requests.time})
        return join_features(asked, self.table, self.columns)


def features_run(path: str) -> Path:
    """Return the directory of another run, after checking that it has features.

    Raises:
        ConfigError: the run has no features.
    """
    run = Path(path).expanduser()
    missing = [stage for stage in STAGES if not (run / stage / MANIFEST).is_file()]
    if missing:
        raise ConfigError(
            "The run has no features.",
            where=f"{SETTING} = {path}",
            expected="the directory of a finished taiji run, with the stages " + ", ".join(STAGES),
            found=f"no finished stage {missing[0]}" if run.is_dir() else "no such directory",
            fix=f"`taiji run CONFIG` computes features; {SETTING}=null ranks without them",
        )
    return run


def features_state(path: str) -> State:
    """Return the state of the files that :func:`import_table` reads."""
    run = features_run(path)
    ids = [run / "data" / "dataset" / f"{kind}s.parquet" for kind in TEXT_IDS]
    return file_state([run / "features" / "taiji.parquet", run / "examples" / "split.json", *ids])


def import_table(path: str, dataset: Dataset, test: int) -> pl.DataFrame:
    """Return the feature table of another run, with users and items matched to this log by their text ids.

    Args:
        path: directory of the other run.
        dataset: dataset of this run.
        test: start of this run's test period, in microseconds.

    Returns:
        The rows of users who are in this log, with the columns user, as_of, available_at, ids, neighbour_items (only
        items of this log), vector, model_version, and quantizer_version.

    Raises:
        ConfigError: the other run has no features, none of them belong to a user of this log, or they were
            fitted on part of the test period.
        ArtifactError: a file of the other run was changed after that run wrote it.
    """
    run = features_run(path)
    Verifier().demand(run, STAGES)
    fitted_until = int(read_json(run / "examples" / "split.json")["bounds"][3])
    if fitted_until > test:
        raise ConfigError(
            "The features were fitted on part of this run's test period.",
            where=f"{SETTING} = {path}",
            expected=f"a run whose test period begins at {_date(test)} or before",
            found=f"a test period that begins at {_date(fitted_until)}",
            fix="use the same section `split` in both runs",
        )
    users, items = _numbers(run, dataset, "user"), _numbers(run, dataset, "item")
    read = pl.read_parquet(run / "features" / "taiji.parquet")
    table = read.with_columns(user=pl.Series(users)[read["user"].cast(pl.Int64)]).filter(pl.col("user") >= 0)
    if table.is_empty():
        raise ConfigError(
            "None of the features belong to a user of this run's log.",
            where=f"{SETTING} = {path}",
            expected="a run with the same user_id values",
            found=f"{read['user'].n_unique()} other users",
            fix="compute the features from a log with the same users",
        )
    table = table.with_columns(neighbour_items=_translated(table["neighbour_items"], items))
    filled = [pl.when(pl.col(name).list.len() > 0).then(pl.col(name)).alias(name) for name in FEATURES]
    kept = {name: kind for name, kind in SCHEMA.items() if name not in ("neighbour", "similarity")}
    return table.with_columns(filled).select(pl.col(name).cast(kind) for name, kind in kept.items())


def _numbers(run: Path, dataset: Dataset, kind: str) -> np.ndarray:
    """Return the dense id in this log of each user or item of the other run; -1 for a user or item that is missing from
    this log."""
    frame = dataset.users if kind == "user" else dataset.items
    ours = frame.select(pl.col(TEXT_IDS[kind]).cast(pl.String).alias("name"), pl.col(kind).cast(pl.Int64).alias("ours"))
    file = run / "data" / "dataset" / f"{kind}s.parquet"
    theirs = pl.read_parquet(file, columns=[kind, TEXT_IDS[kind]]).sort(kind)
    names = theirs.select(pl.col(TEXT_IDS[kind]).cast(pl.String).alias("name"))
    return names.join(ours, on="name", how="left", maintain_order="left")["ours"].fill_null(-1).to_numpy()


def _translated(lists: pl.Series, items: np.ndarray) -> pl.Series:
    """Return lists of the other run's items translated to this log's dense ids. Items that are missing from this log
    are left out, and a list without items becomes null."""
    flat = pl.DataFrame({"row": np.arange(len(lists)), "item": lists}).explode("item").drop_nulls()
    known = flat.with_columns(item=pl.Series(items)[flat["item"].cast(pl.Int64)]).filter(pl.col("item") >= 0)
    kept = known.group_by("row", maintain_order=True).agg("item")
    every = pl.DataFrame({"row": np.arange(len(lists))})
    return every.join(kept, on="row", how="left", maintain_order="left")["item"]


def _date(time: int) -> str:
    return str(pl.Series([time]).cast(pl.Datetime("us"))[0])
