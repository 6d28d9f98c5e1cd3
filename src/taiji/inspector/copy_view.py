"""View of the copywriting of a run: candidate copies of an item by category, with the facts that the copies may use."""

from __future__ import annotations

from typing import Any

import polars as pl

from taiji.inspector.run_view import RunFiles
from taiji.inspector.user import when

ITEMS = 50
"""Number of items per page."""
PARTS = ("quality", "prior", "length")
"""Names of the components of a score."""


def copy_list(run: RunFiles, page: int) -> dict[str, Any]:
    """Return one page of items with copies: title, the chosen copy, and the number of copies that passed the checks.

    Args:
        run: run with a table of copies.
        page: page number, from 1.
    """
    items = _items(run)
    pages = max(1, -(-len(items) // ITEMS))
    page = min(max(page, 1), pages)
    first = (page - 1) * ITEMS
    rows = []
    for place, item in enumerate(items[first : first + ITEMS]):
        mine = run.copies.filter(pl.col("item_id") == item)
        chosen = mine.filter(pl.col("chosen")).to_dicts()
        passed = int(mine["copy"].is_not_null().sum())
        rows.append({
            "number": first + place, "item_id": item, "title": _title(run, item), "chosen": chosen[0] if chosen else None,
            "passed": passed, "written": len(mine),
        })  # fmt: skip
    return {"rows": rows, "total": len(items), "page": page, "pages": pages}


def copy_view(run: RunFiles, number: int) -> dict[str, Any] | None:
    """Return the candidate copies of an item by category, best first, and the facts of the item.

    Args:
        run: run with a table of copies.
        number: index of the item among the items with copies.

    Returns:
        None if the number is out of range.
    """
    items = _items(run)
    if not 0 <= number < len(items):
        return None
    item = items[number]
    mine = run.copies.filter(pl.col("item_id") == item)
    scored = mine["score"].is_not_null().any()
    largest = max((abs(value) for value in mine["score"].drop_nulls()), default=0.0) or 1.0
    categories = []
    for (name,), rows in mine.group_by("category", maintain_order=True):
        ordered = rows.sort("score", "sample", descending=[True, False], nulls_last=True).to_dicts()
        for row in ordered:
            row["parts"] = [(part, row[part]) for part in PARTS] if row["score"] is not None else []
            row["share"] = None if row["score"] is None else 50 + 50 * row["score"] / largest
            row["why"] = [reason for reason in row["reasons"].split(", ") if reason]
        categories.append({"name": name, "rows": ordered})
    facts = run.facts.filter(pl.col("item_id") == item).to_dicts()
    return {
        "number": number,
        "count": len(items),
        "item_id": item,
        "title": _title(run, item),
        "as_of": f"{when(mine['as_of'][0])} UTC" if mine["as_of"][0] > 1 else "the facts have no times",
        "writer": mine["writer"][0],
        "reward_model": mine["reward_model"].drop_nulls().first(),
        "scored": scored,
        "categories": categories,
        "facts": [fact for fact in facts if fact["source"] != "comment"],
        "comments": [fact for fact in facts if fact["source"] == "comment"],
    }


def _items(run: RunFiles) -> list[str]:
    return run.copies["item_id"].unique(maintain_order=True).to_list() if len(run.copies) else []


def _title(run: RunFiles, item: str) -> str:
    titles = run.facts.filter((pl.col("item_id") == item) & (pl.col("source") == "title"))["text"]
    return str(titles[0]) if len(titles) else ""
