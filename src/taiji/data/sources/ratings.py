"""From ratings to exposures: rated = click, a high rating = conversion, non-clicks sampled from items popular at the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from taiji.data.sampling import popular_non_clicks, sample_users
from taiji.data.schema import Tables, dense, validate
from taiji.data.sources.number_cells import as_numbers

WINDOW = 20_000
"""Number of strictly earlier interactions that define popularity."""
LIKED = 4.0
NON_CLICKS = 4


def from_ratings(
    ratings: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame | None,
    *,
    name: str,
    domain: str,
    seed: int,
    keep_users: int | None = None,
    non_clicks: int | None = None,
    notes: tuple[str, ...] = (),
    files: Mapping[str, str] | None = None,
) -> Tables:
    """Make tables from ratings: every rating is an exposure with a click, with a conversion if the rating is at least 4, known at once.

    Args:
        ratings: ``user_id``, ``item_id``, ``timestamp`` (Datetime), ``rating``; ratings of equal times in their true order.
        items: as in :class:`Tables`; the whole catalogue, which ``keep_users`` reduces.
        users: as in :class:`Tables`; None takes the ids alone.
        name, domain, notes: as in :class:`Tables`.
        seed: random seed of the sampling.
        keep_users: see :func:`sample_users`; popularity always comes from all users.
        non_clicks: sampled per rating, at most; default 4.
        files: table name to file, for messages.

    Raises:
        InputError: see :func:`taiji.data.schema.validate`.
    """
    non_clicks = NON_CLICKS if non_clicks is None else non_clicks
    events = ratings.select(
        "user_id",
        "item_id",
        pl.col("timestamp").cast(pl.Datetime("us")),
        pl.lit(True).alias("exposed"),
        pl.lit(1, pl.Int8).alias("click"),
        (as_numbers(ratings["rating"]) >= LIKED).cast(pl.Int8).alias("conversion"),
        pl.col("timestamp").cast(pl.Datetime("us")).alias("matured_at"),
    )
    tables = Tables(items, ids_of(events) if users is None else users, events, name, domain, notes)
    said = "Ratings stand for behaviour: rated = click, a rating of at least 4 = conversion, known at once."
    tables = with_non_clicks(validate(tables, files), per_row=non_clicks, seed=seed, keep_users=keep_users)
    return replace(tables, notes=(said, *tables.notes))


def ids_of(events: pl.DataFrame) -> pl.DataFrame:
    """Return a user table of ids only, for a log without one."""
    return events.select("user_id").drop_nulls().unique().sort("user_id")


def with_non_clicks(tables: Tables, *, per_row: int, seed: int, keep_users: int | None) -> Tables:
    """Keep a sample of the users and add sampled non-clicks to every click; ``notes`` describe the sampling.

    A click has a random place among its non-clicks, so that the order of rows does not reveal it.

    Args:
        tables: checked tables.
        per_row: upper limit of non-clicks per click.
        seed: random seed of both samples.
        keep_users: see :func:`sample_users`; None keeps all.
    """
    items, users = tables.items, tables.users
    notes: list[str] = []
    columns = tables.event_columns
    # A sampled row shares the click's request; its display and outcomes are unknown.
    unknown = [name for name in columns.names if name not in (*columns.context, columns.list_id)]
    events = tables.events.sort("timestamp", maintain_order=True)
    kept = sample_users(events, keep_users, seed)
    keep = events["user_id"].is_in(kept.implode()) if keep_users is not None else None
    clicks = events["click"] == 1
    known = events["conversion"].null_count() < len(
        events
    )  # a log without conversions differs from one in which nobody converts
    if per_row:
        source = events.filter(clicks)
        catalogue = items["item_id"]
        rows, drawn, shuffles = popular_non_clicks(
            dense(source["user_id"], users["user_id"]).to_numpy().astype(np.int64),
            dense(source["item_id"], catalogue).to_numpy().astype(np.int64),
            source["timestamp"].dt.epoch("us").to_numpy(),
            per_row,
            seed,
            window=WINDOW,
            keep=None if keep is None else keep.filter(clicks).to_numpy(),
        )
        places = clicks.arg_true().to_numpy()
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
        sampled = source[rows].with_columns(
            catalogue.gather(drawn).alias("item_id"),
            pl.lit(True).alias("exposed"),
            pl.lit(0, pl.Int8).alias("click"),
            pl.lit(0 if known else None, pl.Int8).alias("conversion"),
            pl.lit(None, pl.Float64).alias("price"),
            *(pl.lit(None, source.schema[name]).alias(name) for name in unknown),
            pl.Series("_row", places[rows], pl.Int64),
            pl.Series("_place", shuffles[rows, ranks]),
        )
        sampled = sampled.unique(["user_id", "item_id", "timestamp"], keep="first", maintain_order=True)
        own = np.zeros(len(events))
        own[places] = shuffles[:, per_row]
        placed = events.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("_row"), pl.Series("_place", own))
        events = pl.concat([placed, sampled]).sort("_row", "_place", maintain_order=True).drop("_row", "_place")
        notes.append(
            f"Exposures without a click are sampled, not observed: up to {per_row} beside each click, drawn by popularity among the last "
            f"{WINDOW:,} strictly earlier interactions, never an item the user had touched by then (seed {seed})."
        )
    if keep_users is not None:
        notes.append(
            f"A seeded sample of {len(kept):,} of {len(users):,} users, spread evenly over time; the catalogue is what they met."
        )
        events = events.filter(pl.col("user_id").is_in(kept.implode()))
        users = users.filter(pl.col("user_id").is_in(kept.implode()))
        items = items.filter(pl.col("item_id").is_in(events["item_id"].unique().implode()))
    return replace(tables, items=items, users=users, events=events, notes=(*tables.notes, *notes))
