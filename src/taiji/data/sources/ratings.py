"""Turn ratings into exposures: a rating is a click, a high rating is a conversion, and non-clicks are sampled from
items popular at the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from taiji.core.errors import InputError
from taiji.data.sampling import popular_non_clicks, sample_users
from taiji.data.schema import Tables, dense, validate
from taiji.data.sources.number_cells import as_numbers

WINDOW = 20_000
"""Number of strictly earlier interactions from which popularity is computed."""
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
    """Make tables from ratings. Every rating is an exposure with a click; a rating of at least 4 is a conversion, which
    is known immediately.

    Args:
        ratings: columns ``user_id``, ``item_id``, ``timestamp`` (Datetime) and ``rating``; rows of equal times are in
            their true order.
        items: whole catalogue, as in :class:`Tables`; with ``keep_users``, only the items in the events of the sampled
            users are kept.
        users: users, as in :class:`Tables`; None uses only the ids in the ratings.
        name, domain, notes: as in :class:`Tables`.
        seed: random seed for sampling.
        keep_users: number of users to sample; None keeps all users. Popularity is always computed from all users.
        non_clicks: largest number of non-clicks to sample per rating (default 4).
        files: file names by table name, for messages.

    Raises:
        InputError: the tables are invalid; see :func:`taiji.data.schema.validate`.
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
    note = "Ratings are used as behaviour: a rating is a click; a rating of at least 4 is a conversion, which is known immediately."
    tables = with_non_clicks(validate(tables, files), per_row=non_clicks, seed=seed, keep_users=keep_users)
    return replace(tables, notes=(note, *tables.notes))


def ids_of(events: pl.DataFrame) -> pl.DataFrame:
    """Return a table of users with only the ids in the log, for a log without a table of users."""
    return events.select("user_id").drop_nulls().unique().sort("user_id")


def with_non_clicks(tables: Tables, *, per_row: int, seed: int, keep_users: int | None) -> Tables:
    """Return the tables with sampled users, and with sampled non-clicks for every click that is an exposure.

    A click is inserted at a random position among its non-clicks, so that the order of rows does not reveal it. The
    ``notes`` of the result describe the sampling.

    Args:
        tables: validated tables.
        per_row: largest number of non-clicks per click.
        seed: random seed for both samples.
        keep_users: number of users to sample; None keeps all users.
    """
    items, users = tables.items, tables.users
    notes: list[str] = []
    columns = tables.event_columns
    # A sampled row belongs to the request of the click; its display and outcomes are unknown.
    unknown = [name for name in columns.names if name not in (*columns.context, columns.list_id)]
    events = tables.events.sort("timestamp", maintain_order=True)
    kept = sample_users(events, keep_users, seed)
    keep = events["user_id"].is_in(kept.implode()) if keep_users is not None else None
    clicks = events["click"] == 1
    known = events["conversion"].null_count() < len(
        events
    )  # a log without conversion labels differs from one in which nobody converts
    if per_row:
        shown = clicks & events["exposed"]
        if clicks.any() and not shown.any():
            raise InputError(
                "Non-clicks cannot be sampled for clicks that are not exposures.",
                where="events.exposed, events.non_clicks",
                expected="clicks that count as exposures, beside which non-clicks are sampled",
                found=f"{int(clicks.sum()):,} clicks, none of them exposed",
                fix="leave `exposed` out of the mapping, or set `non_clicks` to 0",
            )
        source = events.filter(clicks)
        catalogue = items["item_id"]
        rows, drawn, shuffles = popular_non_clicks(
            dense(source["user_id"], users["user_id"]).to_numpy().astype(np.int64),
            dense(source["item_id"], catalogue).to_numpy().astype(np.int64),
            source["timestamp"].dt.epoch("us").to_numpy(),
            per_row,
            seed,
            window=WINDOW,
            keep=(shown if keep is None else shown & keep).filter(clicks).to_numpy(),
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
            f"Exposures without a click are sampled, not observed: up to {per_row} per click, drawn by popularity among the last "
            f"{WINDOW:,} strictly earlier interactions, never an item with which the user had already interacted (seed {seed})."
        )
    if keep_users is not None:
        notes.append(
            f"A seeded sample of {len(kept):,} of {len(users):,} users, chosen at equal steps in the order of their median event times; the catalogue contains the items in their events."
        )
        events = events.filter(pl.col("user_id").is_in(kept.implode()))
        users = users.filter(pl.col("user_id").is_in(kept.implode()))
        items = items.filter(pl.col("item_id").is_in(events["item_id"].unique().implode()))
    return replace(tables, items=items, users=users, events=events, notes=(*tables.notes, *notes))
