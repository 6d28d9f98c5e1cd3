"""A run with copies, written by the rules about a few items, one of them hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from tests.inspector.samples import HOSTILE

from taiji.config import Config, load_config
from taiji.core.artifacts import write_json, write_parquet
from taiji.core.manifests import MANIFEST, write_manifest
from taiji.pipeline.run_copy import make_copies, table_catalogue


def write_copy_run(folder: Path, items: int = 60) -> Path:
    """A folder as `taiji copy ITEMS` leaves it; a reward model chooses, and comments are evidence."""
    folder.mkdir(parents=True)
    titles = [f"{word} lamp" for word in ("Alpine", "Desert", "Winter", "Circus")]
    table = pl.DataFrame({"item_id": [f"i{n}" for n in range(items)], "title": [titles[n % 4] for n in range(items)]})
    hostile = pl.DataFrame({"item_id": ["bad"], "title": [f"Noir chair {HOSTILE}"]})
    pl.concat([table, hostile]).write_csv(folder / "items.csv")
    comments = pl.DataFrame(
        {"item_id": ["i0", "i0"], "text": [f"warm and quiet {HOSTILE}", "older words"], "time": [5, 3]}
    )
    comments.write_parquet(folder / "comments.parquet")
    settings = load_config(overrides=["copywriting.kind=rules", "copywriting.pairs.least_sends=10"])
    assert isinstance(settings, Config)
    write_json(folder / "config.json", settings.model_dump(mode="json"))
    catalogue = table_catalogue(folder / "items.csv", "shop")
    make_copies(folder, catalogue, settings, folder / "comments.parquet")
    copies = pl.read_parquet(folder / "copywriting" / "copies.parquet").filter(pl.col("copy").is_not_null())
    clicks = np.where(copies["category"].to_numpy() == "question", 40, 10)
    clicks = clicks[: 15 * 6]
    results = copies[: len(clicks)].select(
        "item_id", "copy", "category", sends=pl.lit(100), clicks=clicks, satisfied=clicks // 2
    )
    results.write_csv(folder / "results.csv")
    make_copies(folder, catalogue, settings, folder / "comments.parquet", folder / "results.csv")
    _with_markup(folder / "copywriting")
    return folder


def _with_markup(out: Path) -> None:
    """Put markup, which the evidence and the checks leave out, into the tables: pages must not trust them."""
    copies, facts = (pl.read_parquet(out / f"{name}.parquet") for name in ("copies", "facts"))
    bad = pl.col("item_id") == "bad"
    copies = copies.with_columns(
        said=pl.when(bad).then(pl.lit(f"Noir chair {HOSTILE}")).otherwise("said"),
        reasons=pl.when(bad).then(pl.lit("link")).otherwise("reasons"),
        chosen=pl.col("chosen") & ~bad,
        **{name: pl.when(~bad).then(name) for name in ("copy", "score", "propensity")},
    )
    told = pl.when(bad | (pl.col("text") == "warm and quiet")).then(pl.col("text") + HOSTILE).otherwise("text")
    (out / MANIFEST).unlink()
    write_parquet(out / "copies.parquet", copies)
    write_parquet(out / "facts.parquet", facts.with_columns(text=told))
    write_manifest(out, {"seconds": 0.0, "facts": {}})
