"""Feature table with versioned point-in-time rows, and its as-of join.

A row has two times: all of its inputs lie before ``as_of``, and the row can be read after ``available_at``. In a batch
table, ``available_at`` is ``as_of`` plus ``features.delay_s``. The near-online worker sets ``available_at`` to the time
at which it stores the row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.core.artifacts import write_parquet
from taiji.core.errors import InputError
from taiji.data.intent_rows import INTENTS
from taiji.features.lookalike import nearest_users
from taiji.features.settings import FeatureSettings
from taiji.models.codes.product import ProductQuantizer

if TYPE_CHECKING:
    from taiji.data import Dataset

PolarsType = pl.DataType | type[pl.DataType]

SCHEMA: dict[str, PolarsType] = {
    "user": pl.UInt32,
    "as_of": pl.Int64,
    "available_at": pl.Int64,
    "ids": pl.List(pl.UInt16),
    "neighbour": pl.UInt32,
    "similarity": pl.Float32,
    "neighbour_items": pl.List(pl.UInt32),
    "vector": pl.List(pl.Float32),
    "model_version": pl.String,
    "quantizer_version": pl.String,
}
"""Columns of a feature table. ``vector`` is null unless ``keep_vector`` is set."""
FEATURES = ("ids", "neighbour_items", "vector")


def build_table(
    dataset: Dataset,
    rows: pl.DataFrame,
    vectors: np.ndarray,
    quantizer: ProductQuantizer,
    settings: FeatureSettings | None = None,
    model_version: str = "",
    pool: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> pl.DataFrame:
    """Return one feature row per answer.

    Args:
        dataset: source of the look-alikes' interactions.
        rows: one row per answer, with ``user`` (dense id), ``as_of`` (microseconds), and optionally ``available_at``
            (default: ``as_of`` plus ``settings.delay_s``).
        vectors: (N, d) embedding of each answer. A row of zeros stands for a missing answer, which gives null features.
        quantizer: quantiser fitted on answers before the test period.
        settings: number of neighbour items, delay until a row is available, and option to keep the vectors.
        model_version: version of the LLM that wrote the answers.
        pool: users, times and vectors of the rows among which look-alikes are searched; by default the given rows.

    Returns:
        One row per input row, in the same order, with the columns of :data:`SCHEMA`.
    """
    settings = settings or FeatureSettings()
    users, as_ofs = rows["user"].to_numpy().astype(np.int64), rows["as_of"].to_numpy().astype(np.int64)
    vectors = np.asarray(vectors, dtype=np.float32)
    if len(vectors) != len(rows):
        raise InputError(
            "The number of embeddings differs from the number of rows.",
            where="features",
            expected=f"{len(rows)} embeddings",
            found=str(len(vectors)),
        )
    answered = np.linalg.norm(vectors, axis=1) > 0 if len(vectors) else np.zeros(0, dtype=bool)
    neighbours, cosines = nearest_users(users, as_ofs, vectors, pool, block=settings.search_block)
    items, _ = dataset.history.before_batch(np.maximum(neighbours, 0), as_ofs, settings.neighbour_items)
    items[neighbours < 0] = -1
    found = pl.Series(neighbours >= 0)
    ids = quantizer.encode(vectors)
    available = rows["available_at"].to_numpy() if "available_at" in rows.columns else available_from(as_ofs, settings)
    if (available < as_ofs).any():
        raise InputError(
            "A feature row becomes available before its `as_of`.",
            where="column available_at",
            expected="as_of or later",
            found=f"{int((available < as_ofs).sum())} rows with an earlier time",
        )
    return (
        pl.DataFrame(
            {
                "user": users,
                "as_of": as_ofs,
                "available_at": available,
                "ids": _lists(ids, np.full(len(rows), ids.shape[1]), answered, pl.UInt16),
                "neighbour": neighbours,
                "similarity": cosines,
                "neighbour_items": _lists(items, (items >= 0).sum(axis=1), neighbours >= 0, pl.UInt32),
                "vector": _lists(
                    vectors, np.full(len(rows), vectors.shape[1]), answered & settings.keep_vector, pl.Float32
                ),
                "model_version": [model_version] * len(rows),
                "quantizer_version": [quantizer.version] * len(rows),
            },
            schema_overrides={"user": pl.UInt32, "as_of": pl.Int64, "available_at": pl.Int64},
        )
        .with_columns(
            pl.when(found).then(pl.col("neighbour")).cast(pl.UInt32).alias("neighbour"),
            pl.when(found).then(pl.col("similarity")).cast(pl.Float32).alias("similarity"),
        )
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )


def available_from(as_ofs: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Return the times ``available_at`` (microseconds) of the rows of a batch table."""
    moved: np.ndarray = as_ofs + round(settings.delay_s * 1e6)
    return moved


def fit_table(
    dataset: Dataset,
    rows: pl.DataFrame,
    vectors: np.ndarray,
    cut: int,
    settings: FeatureSettings | None = None,
    model_version: str = "",
    seed: int = 0,
) -> tuple[ProductQuantizer, pl.DataFrame]:
    """Fit a quantiser on the rows before ``cut`` (in microseconds), and return it together with the table that
    :func:`build_table` computes with it. Evaluation uses the rows from ``cut`` on."""
    known = (rows["as_of"] < cut).to_numpy() & (np.linalg.norm(vectors, axis=1) > 0)
    quantizer = ProductQuantizer.fit(vectors[known] if known.any() else vectors[:1], settings, seed)
    return quantizer, build_table(dataset, rows, vectors, quantizer, settings, model_version)


def join_features(exposures: pl.DataFrame, table: pl.DataFrame, columns: tuple[str, ...] = FEATURES) -> pl.DataFrame:
    """Join each exposure with the latest feature row of its user that became available strictly before the exposure.

    This is the row that the near-online service would have returned.

    Args:
        exposures: table with the columns ``user``, ``time``, …; the order of its rows is kept.
        table: feature rows. If several rows of a user became available at the same time, the one with the newest
            ``as_of`` is used. Among rows with equal ``as_of``, the last one in the table is used. Without a column
            ``available_at``, rows become available at their ``as_of``.
        columns: features to join.

    Returns:
        The exposures with the further columns ``columns`` and ``feature_as_of``, which are null where no row was
        available yet.
    """
    clash = {*columns, "feature_as_of"} & set(exposures.columns)
    if clash:
        raise InputError(
            "The exposures already have feature columns.",
            where="exposures",
            expected="none of " + ", ".join((*columns, "feature_as_of")),
            found=", ".join(sorted(clash)),
        )
    numbered = exposures.with_row_index("_row").with_columns(pl.col("user").cast(pl.Int64).alias("_user"))
    features = (
        table.select(
            pl.col("user").cast(pl.Int64).alias("_user"),
            pl.col("as_of").cast(pl.Int64).alias("feature_as_of"),
            pl.col("available_at" if "available_at" in table.columns else "as_of").cast(pl.Int64).alias("_available"),
            *columns,
        )
        .sort("_available", "feature_as_of", maintain_order=True)
        .unique(["_user", "_available"], keep="last", maintain_order=True)
    )
    joined = numbered.sort("time", "_row").join_asof(
        features,
        left_on="time",
        right_on="_available",
        by="_user",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    return joined.sort("_row").drop("_row", "_user", "_available", strict=False)


def feature_metrics(exposures: pl.DataFrame) -> dict[str, float]:
    """Return the coverage and freshness of joined features.

    Args:
        exposures: result of :func:`join_features`.

    Returns:
        Metrics by name. ``coverage`` is the share of exposures with a feature row. ``users`` is the share of users with
        a feature row for at least one exposure. ``ids`` and ``neighbour_items`` are the shares of exposures for which
        that feature is not empty. ``age_days_median`` and ``age_days_p90`` describe the age of the feature row at the
        exposure (0 if there are no feature rows).
    """
    has = exposures["feature_as_of"].is_not_null()
    ages = ((exposures["time"] - exposures["feature_as_of"]).drop_nulls() / 86_400_000_000).to_numpy()
    per_user = exposures.select("user", has.alias("has")).group_by("user").agg(pl.col("has").any())
    out = {"coverage": float(has.mean() or 0), "users": float(per_user["has"].mean() or 0)}  # type: ignore[arg-type]
    for name in ("ids", "neighbour_items"):
        if name in exposures.columns:
            out[name] = float((exposures[name].list.len().fill_null(0) > 0).mean() or 0)  # type: ignore[arg-type]
    for name, share in (("age_days_median", 0.5), ("age_days_p90", 0.9)):
        out[name] = float(np.quantile(ages, share)) if len(ages) else 0.0
    return out


def export_table(table: pl.DataFrame, dataset: Dataset, path: str | Path) -> pl.DataFrame:
    """Write the table to a Parquet file with the users' and items' original ids, and with times as timestamps.

    The file is a point-in-time source for a feature store (Feast: ``FileSource(path,
    timestamp_field="event_timestamp")`` with the join key ``user_id``). ``event_timestamp`` is ``available_at``, and
    all inputs of a row lie before ``as_of``. A point-in-time join gives the same rows as :func:`join_features`, with
    one exception: for a request at exactly the ``event_timestamp`` of a row, Feast reads this row, but
    :func:`join_features` does not.

    Returns:
        The written table with the columns user_id, event_timestamp, as_of, ids, neighbour_user_id, similarity,
        neighbour_item_ids, vector, the columns of intents (if answers are sets), model_version, and quantizer_version.
    """
    users = dataset.users.select(pl.col("user").cast(pl.UInt32), "user_id")
    items = dataset.items["item_id"]
    further = [name for name in INTENTS if name in table.columns]
    lengths = table["neighbour_items"].list.len()
    flat = table["neighbour_items"].filter(lengths.fill_null(0) > 0).explode()
    names = items.gather(flat) if len(flat) else items.head(0)
    row = np.repeat(np.arange(len(table)), lengths.fill_null(0).to_numpy())
    lists = pl.DataFrame({"_row": row, "neighbour_item_ids": names}, schema_overrides={"_row": pl.Int64})
    lists = lists.group_by("_row", maintain_order=True).agg("neighbour_item_ids")
    out = (
        table.with_row_index("_row")
        .with_columns(pl.col("_row").cast(pl.Int64))
        .join(users, on="user", how="left", maintain_order="left")
        .join(
            users.rename({"user": "neighbour", "user_id": "neighbour_user_id"}),
            on="neighbour",
            how="left",
            maintain_order="left",
        )
        .join(lists, on="_row", how="left", maintain_order="left")
        .select(
            "user_id",
            pl.from_epoch("available_at", time_unit="us").alias("event_timestamp"),
            pl.from_epoch("as_of", time_unit="us"),
            "ids",
            "neighbour_user_id",
            "similarity",
            "neighbour_item_ids",
            "vector",
            *further,
            "model_version",
            "quantizer_version",
        )
    )
    write_parquet(path, out)
    return out


def _lists(values: np.ndarray, lengths: np.ndarray, present: np.ndarray, kind: PolarsType) -> pl.Series:
    """Return a list column from a padded matrix. A row's list has its first ``lengths`` values, and is null where
    ``present`` is False."""
    present = np.asarray(present, dtype=bool)
    inside = np.arange(values.shape[1])[None, :] < lengths[:, None]
    flat = pl.Series(values[present[:, None] & inside]).cast(kind)
    rows = np.repeat(np.arange(len(values)), np.where(present, lengths, 0))
    grouped = (
        pl.DataFrame({"row": rows, "values": flat}, schema_overrides={"row": pl.Int64})
        .group_by("row", maintain_order=True)
        .agg("values")
    )
    frame = pl.DataFrame({"row": np.arange(len(values)), "present": present}, schema_overrides={"row": pl.Int64})
    frame = frame.join(grouped, on="row", how="left", maintain_order="left")
    empty = pl.lit([], dtype=pl.List(kind))
    return frame.select(pl.when("present").then(pl.col("values").fill_null(empty)).otherwise(None).cast(pl.List(kind)))[
        "values"
    ]
