"""Results of sends as pairs: two copies of one item, of which one did better than chance allows.

Two copies are compared only within strata (a day, an audience) in which both were sent, by the test of Mantel and Haenszel: what a
stratum does to the rate of both, it does not do to their difference. Source: Mantel and Haenszel, *JNCI* 1959.
"""

from __future__ import annotations

import logging

import polars as pl

from taiji.copywriting.settings import PairSettings
from taiji.core.errors import InputError

logger = logging.getLogger(__name__)
NEEDED = ("item_id", "copy", "sends", "clicks")
"""Columns of results; ``category``, ``stratum`` and ``satisfied`` may stand beside them."""
COUNTS = ("sends", "clicks", "satisfied")
"""Columns of results that are whole numbers."""
PAIRS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "winner": pl.String(),
    "loser": pl.String(),
    "winner_category": pl.String(),
    "loser_category": pl.String(),
    "sends": pl.Int64(),
    "z": pl.Float64(),
}
"""Columns of pairs: ``sends`` of the one that was sent less within common strata, and ``z`` of the test, above 0."""


def check_results(results: pl.DataFrame, where: str = "results") -> pl.DataFrame:
    """Return results of sends with every column: one row per item, copy, category and stratum.

    Raises:
        InputError: a column is missing, or counts are not counts.
    """
    missing = [name for name in NEEDED if name not in results.columns]
    if missing:
        raise InputError(
            "A table is not one of results of sends.",
            where=where,
            expected=f"columns {', '.join(NEEDED)}, and optionally category, stratum, satisfied",
            found=f"no {', '.join(missing)}",
        )
    uncounted = [name for name in COUNTS if name in results.columns and not _whole(results[name])]
    if uncounted:
        raise InputError(
            "Results of sends are no counts.",
            where=f"{where}, column {uncounted[0]}",
            expected="whole numbers",
            found=f"{results[uncounted[0]].dtype}, such as {results[uncounted[0]].drop_nulls().first()!r}",
        )
    given = results.with_columns(
        pl.col("item_id").cast(pl.String),
        (pl.col("category").cast(pl.String) if "category" in results.columns else pl.lit("")).alias("category"),
        (pl.col("stratum").cast(pl.String) if "stratum" in results.columns else pl.lit("")).alias("stratum"),
        (pl.col("satisfied") if "satisfied" in results.columns else pl.lit(None)).alias("satisfied").cast(pl.Int64),
        pl.col("sends", "clicks").cast(pl.Int64),
    )
    wrong = given.filter(
        (pl.col("sends") < 0)
        | (pl.col("clicks") < 0)
        | (pl.col("clicks") > pl.col("sends"))
        | (pl.col("satisfied") > pl.col("clicks"))
        | (pl.col("satisfied") < 0)
        | pl.any_horizontal(pl.col(*NEEDED).is_null())
    )
    if len(wrong):
        raise InputError(
            "Results of sends are no counts.",
            where=f"{where}, item {wrong['item_id'][0]}, copy {wrong['copy'][0]!r}",
            expected="0 ≤ satisfied ≤ clicks ≤ sends, and none missing",
            found=f"{len(wrong)} rows otherwise, the first with "
            + ", ".join(f"{name} {wrong[name][0]}" for name in ("sends", "clicks", "satisfied")),
            fix="count every send once in its stratum, a click among its sends, a satisfied one among the clicks",
        )
    keys = ["item_id", "copy", "category", "stratum"]
    counts = [pl.col("sends").sum(), pl.col("clicks").sum()]
    known = pl.when(pl.col("satisfied").null_count() == 0).then(pl.col("satisfied").sum())
    return given.group_by(keys, maintain_order=True).agg(*counts, known.alias("satisfied"))


def _whole(counts: pl.Series) -> bool:
    """Return whether a column has whole numbers, be they written as floats; one that is null throughout counts nothing wrongly."""
    if counts.dtype.is_float():
        known = counts.drop_nulls()
        return bool(known.is_finite().all() and (known == known.round()).all())
    return counts.dtype.is_integer() or counts.dtype == pl.Null


def copy_pairs(results: pl.DataFrame, settings: PairSettings, where: str = "results") -> pl.DataFrame:
    """Return pairs of copies of the same item of which one did better.

    Args:
        results: see :func:`check_results`. settings: least sends, least z, and the outcome that counts. where: their name in an error.

    Returns:
        columns :data:`PAIRS`, by item and then in the order in which the copies occur.

    Raises:
        InputError: the outcome is satisfaction and some sends do not tell it.
    """
    checked = check_results(results, where)
    if settings.outcome == "satisfied" and checked["satisfied"].null_count():
        raise InputError(
            "Some results do not tell who was satisfied.",
            where=f"{where}, column satisfied",
            expected="of every row how many of those who clicked were satisfied (did not leave at once, rated well)",
            found=f"{checked['satisfied'].null_count()} rows without",
            fix="add the column, or set copywriting.pairs.outcome=clicks and live with clickbait",
        )
    if settings.outcome == "clicks":
        logger.warning("Copies are compared by clicks alone: what promises more than it keeps will win.")
    copies = checked.select("item_id", "copy", "category").unique(maintain_order=True).with_row_index("place")
    rows = checked.join(copies, on=["item_id", "copy", "category"]).select(
        "item_id", "place", "stratum", n=pl.col("sends").cast(pl.Float64), x=pl.col(settings.outcome).cast(pl.Float64)
    )
    both = rows.join(rows, on=["item_id", "stratum"], suffix="2").filter(
        (pl.col("place") < pl.col("place2")) & (pl.col("n") > 0) & (pl.col("n2") > 0)
    )
    n, x = pl.col("n") + pl.col("n2"), pl.col("x") + pl.col("x2")
    tested = (
        both.with_columns(
            excess=pl.col("x") - pl.col("n") * x / n,
            variance=pl.when(n > 1).then(pl.col("n") * pl.col("n2") * x * (n - x) / (n**2 * (n - 1))).otherwise(0.0),
        )
        .group_by("place", "place2")
        .agg(pl.col("excess", "variance", "n", "n2").sum())
        .with_columns(sends=pl.min_horizontal("n", "n2").cast(pl.Int64), z=pl.col("excess") / pl.col("variance").sqrt())
        .filter(
            (pl.col("variance") > 0)
            & (pl.col("sends") >= settings.least_sends)
            & (pl.col("z").abs() >= settings.least_z)
        )
        .sort("place", "place2")
    )
    first_won = pl.col("z") > 0
    won, lost = (
        tested.select(pl.when(first_won if better else ~first_won).then("place").otherwise("place2").alias("place"))
        for better in (True, False)
    )
    winners, losers = (side.join(copies, on="place", how="left", maintain_order="left") for side in (won, lost))
    return pl.DataFrame(
        {
            "item_id": winners["item_id"],
            "winner": winners["copy"],
            "loser": losers["copy"],
            "winner_category": winners["category"],
            "loser_category": losers["category"],
            "sends": tested["sends"],
            "z": tested["z"].abs(),
        },
        schema=PAIRS,
    )
