"""Convert results of sends into pairs: two texts about the same item, with a winner and a loser.

The Mantel–Haenszel test compares two texts within the strata (a day, an audience) in which both were sent, so that
differences between strata do not bias the comparison. Source: Mantel and Haenszel, *JNCI* 1959.
"""

from __future__ import annotations

import logging

import polars as pl

from taiji.copywriting.settings import PairSettings
from taiji.core.errors import InputError

logger = logging.getLogger(__name__)
NEEDED = ("item_id", "copy", "sends", "clicks")
"""Required columns of results; ``category``, ``stratum`` and ``satisfied`` are optional."""
COUNTS = ("sends", "clicks", "satisfied")
"""Columns of results that are integers."""
PAIRS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "winner": pl.String(),
    "loser": pl.String(),
    "winner_category": pl.String(),
    "loser_category": pl.String(),
    "sends": pl.Int64(),
    "z": pl.Float64(),
}
"""Columns of pairs. ``sends`` counts the sends, within common strata, of the copy that was sent less often. ``z``
(above 0) is the test statistic."""
TIE = 1e-9
"""Smallest test statistic of a pair. The statistic of equal rates may differ from zero by a rounding error."""


def check_results(results: pl.DataFrame, where: str = "results") -> pl.DataFrame:
    """Return results of sends with all columns, including the optional ones, and one row per item, copy, category
    and stratum.

    Raises:
        InputError: a column is missing, or counts are missing, contradictory or not integers.
    """
    missing = [name for name in NEEDED if name not in results.columns]
    if missing:
        raise InputError(
            "The table does not contain results of sends.",
            where=where,
            expected=f"columns {', '.join(NEEDED)}, and optionally category, stratum, satisfied",
            found=f"no {', '.join(missing)}",
        )
    uncounted = [name for name in COUNTS if name in results.columns and not _whole(results[name])]
    if uncounted:
        raise InputError(
            "The results of sends are not counts.",
            where=f"{where}, column {uncounted[0]}",
            expected="whole numbers",
            found=f"{results[uncounted[0]].dtype}, such as {results[uncounted[0]].drop_nulls().first()!r}",
        )
    given = results.with_columns(
        pl.col("item_id").cast(pl.String),
        *(_optional_text(results, name) for name in ("category", "stratum")),
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
            "The results of sends are not consistent counts.",
            where=f"{where}, item {wrong['item_id'][0]}, copy {wrong['copy'][0]!r}",
            expected="0 ≤ satisfied ≤ clicks ≤ sends, and none missing",
            found=f"{len(wrong)} rows that violate this, the first with "
            + ", ".join(f"{name} {wrong[name][0]}" for name in ("sends", "clicks", "satisfied")),
            fix="count every send once in its stratum, clicks among the sends, and satisfied users among the clicks",
        )
    keys = ["item_id", "copy", "category", "stratum"]
    counts = [pl.col("sends").sum(), pl.col("clicks").sum()]
    known = pl.when(pl.col("satisfied").null_count() == 0).then(pl.col("satisfied").sum())
    return given.group_by(keys, maintain_order=True).agg(*counts, known.alias("satisfied"))


def _optional_text(results: pl.DataFrame, name: str) -> pl.Expr:
    """Return an optional column as text. Where it is missing or empty, the text is empty, because a join matches no
    nulls."""
    given = pl.col(name).cast(pl.String).fill_null("") if name in results.columns else pl.lit("")
    return given.alias(name)


def _whole(counts: pl.Series) -> bool:
    """Return True if a column has integer values, even if they are stored as floats, or only nulls."""
    if counts.dtype.is_float():
        known = counts.drop_nulls()
        return bool(known.is_finite().all() and (known == known.round()).all())
    return counts.dtype.is_integer() or counts.dtype == pl.Null


def copy_pairs(results: pl.DataFrame, settings: PairSettings, where: str = "results") -> pl.DataFrame:
    """Return the pairs of texts about the same item whose difference is at least ``settings.least_z`` standard errors.

    Args:
        results: see :func:`check_results`.
        settings: minimum number of sends, minimum z, and the outcome to compare.
        where: name of the results in error messages.

    Returns:
        columns :data:`PAIRS`, in the order in which the copies first occur in the results.

    Raises:
        InputError: the outcome is satisfaction, and some rows lack it.
    """
    checked = check_results(results, where)
    if settings.outcome == "satisfied" and checked["satisfied"].null_count():
        raise InputError(
            "Some results do not contain the number of satisfied users.",
            where=f"{where}, column satisfied",
            expected="for every row, how many users who clicked were satisfied (did not leave at once, rated well)",
            found=f"{checked['satisfied'].null_count()} rows without this number",
            fix="add the column, or set copywriting.pairs.outcome=clicks, which rewards clickbait",
        )
    if settings.outcome == "clicks":
        logger.warning("Texts are compared by clicks alone, which favours texts that promise more than they keep.")
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
            & (pl.col("z").abs() >= max(settings.least_z, TIE))
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
