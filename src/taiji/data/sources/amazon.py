"""Read Amazon reviews: a folder with JSON lines of reviews and metadata, or a folder with interactions.csv and
items.jsonl."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.progress import track
from taiji.data.schema import LEVELS, Tables
from taiji.data.sources.files import JSON_LINES, json_lines, kind_of, read_table
from taiji.data.sources.ratings import from_ratings
from taiji.data.sources.source import FolderSource

if TYPE_CHECKING:
    from taiji.data.settings import DataSettings

PREPARED = ("interactions.csv", "items.jsonl")
NO_TEXT = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
"""Pattern of comments, scripts and styles. An unclosed one extends to the end, so that no text is scanned twice."""
TAG = re.compile(r"</?[a-zA-Z][^<>]*(?:>|\Z)")
SCRIPT = re.compile(r"\bgetTime\(|\bvar aPageStart\b|\bfunction\s*\(")
"""Pattern of page code, which replaces some titles in the published metadata."""
PRICE = re.compile(r"^\s*+\$?\s*+(\d[\d,]*+(?:\.\d++)?)\s*+$")
MILLISECONDS = 10**11
"""Smallest number that is a time in milliseconds (2023 release); smaller numbers are seconds."""


def layout(folder: Path) -> str | None:
    """Return the layout of a folder: ``"prepared"`` (interactions.csv, items.jsonl), ``"raw"`` (JSON lines of reviews
    and meta_* files), or None."""
    if all((folder / file).is_file() for file in PREPARED):
        return "prepared"
    reviews, metadata = _raw_files(folder)
    return "raw" if reviews and metadata else None


def plain_text(value: Any) -> str:
    """Remove markup from a text: strip tags, comments, styles and scripts, decode entities, and collapse white space.
    The texts of a list are joined."""
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, map(plain_text, value)))
    if not isinstance(value, str):
        return ""
    text = html.unescape(value)
    text = TAG.sub(" ", NO_TEXT.sub(" ", text))
    return " ".join(html.unescape(text).split())


def levels(categories: Any, brand: str | None) -> list[str | None]:
    """Return three category levels, None where missing.

    With a brand, they are the first categories, at most two, followed by the brand; otherwise the first three
    categories.
    """
    if isinstance(categories, list) and categories and isinstance(categories[0], list):
        categories = categories[0]
    if isinstance(categories, str):
        categories = [categories]
    path = [text for text in map(plain_text, categories or []) if text]
    path = [*path[:2], brand] if brand else path[:3]
    return [path[place] if place < len(path) else None for place in range(3)]


def load(folder: Path, *, seed: int = 0, users: int | None = None, non_clicks: int | None = None) -> Tables:
    """Read a folder of Amazon reviews. Ratings become exposures as in :func:`from_ratings`.

    Raises:
        InputError: the folder has neither of the two layouts, or a file is broken.
    """
    found = layout(folder)
    if found is None:
        raise InputError(
            "No Amazon layout found.",
            where=str(folder),
            expected=f"{' and '.join(PREPARED)}; or JSON-lines files of reviews and meta_* files (.json, .jsonl, possibly .gz)",
            found=", ".join(sorted(file.name for file in folder.iterdir())[:8])
            if folder.is_dir()
            else "no such folder",
            fix="name the folder that contains the reviews and the metadata",
        )
    files = dict(zip(("events", "items"), (str(folder / file) for file in PREPARED))) if found == "prepared" else None
    ratings, items, notes = _prepared(folder) if found == "prepared" else _raw(folder)
    notes = ("Category levels are the product's first categories with its brand as the deepest level.", *notes)
    return from_ratings(
        ratings,
        items,
        None,
        name=folder.resolve().name,
        domain="shop",
        seed=seed,
        keep_users=users,
        non_clicks=non_clicks,
        notes=notes,
        files=files,
    )


class Amazon(FolderSource):
    """Source ``amazon:FOLDER``, or a folder with an Amazon layout."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return True if the path is a folder with an Amazon layout."""
        return path.is_dir() and layout(path) is not None

    def load(self, settings: DataSettings, seed: int) -> Tables:
        """Read the folder; see :func:`load`."""
        return load(self.folder, seed=seed, users=settings.users, non_clicks=settings.non_clicks)


def _raw_files(folder: Path) -> tuple[list[Path], list[Path]]:
    files = (
        sorted(file for file in folder.iterdir() if file.is_file() and kind_of(file) in JSON_LINES)
        if folder.is_dir()
        else []
    )
    metadata = [file for file in files if file.name.lower().startswith("meta")]
    return [file for file in files if file not in metadata], metadata


def _items(rows: Iterable[dict[str, Any]], id_of: Any) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in ("item_id", "title", *LEVELS, "price", "description")}
    for row in rows:
        brand = re.sub(r"^by\s+", "", plain_text(row.get("brand") or row.get("store"))) or None
        title = plain_text(row.get("title"))
        if SCRIPT.search(title):
            title = ""
        columns["item_id"].append(id_of(row))
        columns["title"].append(title or "(untitled)")
        for level, text in zip(LEVELS, levels(row.get("categories") or row.get("category"), brand)):
            columns[level].append(text)
        columns["price"].append(_price(row.get("price")))
        columns["description"].append(plain_text(row.get("description")) or None)
    texts = dict.fromkeys(("title", *LEVELS, "description"), pl.String)
    return pl.DataFrame(columns, schema_overrides={**texts, "price": pl.Float64}, strict=False)


def _price(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = PRICE.match(value) if isinstance(value, str) else None
    return float(found[1].replace(",", "")) if found else None


def _required(path: Path, row: dict[str, Any], number: int, *names: str) -> Any:
    """Return the value of the first of several keys that exists in the row."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(
        "A key is missing.",
        where=f"{path}, object {number}",
        expected=" or ".join(names),
        found=", ".join(sorted(row)) or "an empty object",
    )


def _prepared(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    path = folder / PREPARED[0]
    ratings = read_table(
        path, {"user_id": "text", "pos": "integer", "item_id": "integer", "rating": "number", "timestamp": "integer"}
    )
    _check_order(ratings, path)
    ratings = _in_order(ratings)
    items_path = folder / PREPARED[1]
    rows = list(json_lines(items_path))
    numbers = {id(row): number for number, row in enumerate(rows, start=1)}
    items = _items(rows, lambda row: _whole_id(items_path, row, numbers[id(row)]))
    ratings = ratings.with_columns(pl.from_epoch("timestamp", time_unit="s"))
    ratings, notes = _drop_repeated_reviews(ratings)
    return ratings, items, tuple(notes)


def _drop_repeated_reviews(ratings: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Keep the first review of each user, product and time, and return a note on the others. Published files contain
    repeated reviews."""
    kept = ratings.unique(["user_id", "item_id", "timestamp"], keep="first", maintain_order=True)
    repeated = len(ratings) - len(kept)
    return kept, [
        f"{repeated:,} reviews repeat an earlier one of the same user, product and time and were dropped."
    ] if repeated else []


def _whole_id(path: Path, row: dict[str, Any], number: int) -> int:
    value = _required(path, row, number, "item_id")
    if isinstance(value, bool) or not str(value).isdecimal():
        raise InputError(
            "The id of an item is not a whole number.",
            where=f"{path}, object {number}",
            expected="an integer",
            found=repr(value),
        )
    return int(value)


def _in_order(ratings: pl.DataFrame) -> pl.DataFrame:
    """Sort the reviews of each user by ``pos``, within the rows that the reviews of this user occupy."""
    slots = ratings.with_row_index("row").sort("user_id", "row")["row"]
    return ratings.sort("user_id", "pos", maintain_order=True).with_columns(slots).sort("row").drop("row")


def _check_order(ratings: pl.DataFrame, path: Path) -> None:
    """Raise an error if timestamps contradict ``pos``, which gives the order of each user's reviews."""
    numbered = ratings.with_row_index("row").sort("user_id", "pos", maintain_order=True)
    wrong = numbered.filter(pl.col("timestamp") < pl.col("timestamp").shift(1).over("user_id"))["row"].sort()
    if len(wrong):
        from taiji.data.schema import row_list

        raise InputError(
            "Timestamps are not in ascending order.",
            where=f"{path}, column timestamp, {row_list(wrong)}",
            expected="timestamps that never decrease with pos within a user",
            found=f"{len(wrong):,} rows with an earlier timestamp than the user's previous review by pos",
            fix="correct pos or the timestamps",
        )


def _raw(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    review_files, metadata_files = _raw_files(folder)
    columns: dict[str, list[Any]] = {name: [] for name in ("user_id", "item_id", "rating", "timestamp")}
    for path in review_files:
        for number, row in enumerate(track(json_lines(path), f"reading {path.name}"), start=1):
            columns["user_id"].append(str(_required(path, row, number, "reviewerID", "user_id")))
            columns["item_id"].append(str(_required(path, row, number, "parent_asin", "asin")))
            try:
                columns["rating"].append(float(_required(path, row, number, "overall", "rating")))
                time = int(_required(path, row, number, "unixReviewTime", "timestamp"))
            except (TypeError, ValueError) as error:
                raise InputError(
                    "A rating or time is not a number.",
                    where=f"{path}, object {number}",
                    expected="numbers in overall (rating) and unixReviewTime (timestamp)",
                    found=str(error),
                ) from error
            columns["timestamp"].append(time * 1000 if time >= MILLISECONDS else time * 1_000_000)
    ratings = pl.DataFrame(
        columns, schema={"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
    )
    ratings = ratings.with_columns(pl.from_epoch("timestamp", time_unit="us"))
    ratings, notes = _drop_repeated_reviews(ratings)
    wanted, seen = set(ratings["item_id"]), set()
    rows, repeated = [], 0
    for path in metadata_files:
        for number, row in enumerate(track(json_lines(path), f"reading {path.name}"), start=1):
            asin = str(_required(path, row, number, "parent_asin", "asin"))
            repeated += asin in seen
            if asin in wanted and asin not in seen:
                rows.append(row)
            seen.add(asin)
    items = _items(rows, lambda row: str(row.get("parent_asin") or row.get("asin")))
    if repeated:
        notes.append(f"{repeated:,} metadata lines repeat a product; the first line of each product is used.")
    known = ratings["item_id"].is_in(items["item_id"].implode())
    if not known.all():
        notes.append(f"{(~known).sum():,} reviews of products without metadata were dropped.")
    return ratings.filter(known), items, tuple(notes)
