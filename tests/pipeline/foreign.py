"""A stage and a ranking model of another package, as a module that tests write to a folder of their own."""

from __future__ import annotations

from pathlib import Path

MODULE = '''\
import json
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from taiji.core.settings import Settings
from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage


class PriceBandSettings(Settings):
    """Bands of price."""

    bands: int = Field(default=3, ge=1)
    """Bands, of equally many items each."""
    column: str = "price"
    """Column of the item table."""


class PriceBands(Stage):
    """Counts items per band of price."""

    name = "price_bands"
    summary = "Cut the catalogue into bands of price."
    needs = ("data",)
    publish = ("bands.json",)
    Settings = PriceBandSettings

    def cost(self, config, log):
        return Amount(log.items * self.own(config, PriceBandSettings).bands)

    def run(self, context):
        settings = self.own(context.config, PriceBandSettings)
        items = pl.read_parquet(context.input("data") / "dataset" / "items.parquet")
        ranks = items[settings.column].rank("ordinal") - 1
        counts = (ranks * settings.bands // len(items)).value_counts(sort=False)["count"].sort().to_list()
        (context.folder / "bands.json").write_text(json.dumps(counts))
        return {"bands": len(counts)}


class Popular:
    """Click rate of each item, smoothed."""

    class Settings(Settings):
        """Smoothing of rates."""

        smoothing: float = Field(default=1.0, gt=0)
        """Clicks and exposures that every item has beforehand."""

    version, goal = "popular", "ctcvr"

    def __init__(self, settings):
        self.settings = settings

    def fit(self, dataset, rows, *, seed, device="cpu"):
        add = self.settings.smoothing
        shown = np.bincount(rows["item"].to_numpy(), minlength=dataset.n_items)
        clicked = np.bincount(rows.filter(pl.col("click") == 1)["item"].to_numpy(), minlength=dataset.n_items)
        self.rate = (clicked + add) / (shown + 2 * add)
        return self

    def predict(self, exposures):
        rate = self.rate[exposures["item"].to_numpy()]
        return pl.DataFrame({"click": rate, "conversion": rate, "ctcvr": rate * rate})

    def score_pairs(self, users, items, times):
        return self.rate[items] ** 2

    def save(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        learnt = {"class": "shop_parts:Popular", "smoothing": self.settings.smoothing, "rates": self.rate.tolist()}
        (Path(folder) / "config.json").write_text(json.dumps(learnt))

    @classmethod
    def load(cls, folder, dataset):
        learnt = json.loads((Path(folder) / "config.json").read_text())
        made = cls(cls.Settings(smoothing=learnt["smoothing"]))
        made.rate = np.array(learnt["rates"])
        return made
'''
STAGE, RANKER = "shop_parts:PriceBands", "shop_parts:Popular"


def write_module(folder: Path) -> Path:
    """Write the module ``shop_parts`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop_parts.py").write_text(MODULE)
    return folder
