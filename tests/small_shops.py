"""A small log and an embedder without a model, for tests of baselines and answers."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables

START = datetime(2024, 1, 1)


def micros(day: float) -> int:
    """Days after the start as microseconds since the epoch."""
    return int((START + timedelta(days=day) - datetime(1970, 1, 1)).total_seconds() * 1e6)


def build(purchases: list[tuple[int, int, float]], n_items: int = 6, titles: list[str] | None = None) -> Dataset:
    """A dataset from (user, item, day) purchases; items 0 and 1 are fruit, 2 and 3 bread, the rest have one level."""
    names = titles or ["Red apple", "Green pear", "Rye loaf", "Wheat roll", "Soap bar", "Candle"][:n_items]
    names += [f"Thing {k}" for k in range(len(names), n_items)]
    levels = {
        0: ("FOOD", "FRUIT", "APPLES"),
        1: ("FOOD", "FRUIT", "PEARS"),
        2: ("FOOD", "BREAD", "RYE"),
        3: ("FOOD", "BREAD", "WHEAT"),
    }
    rows = [levels.get(k, ("HOME", None, None)) for k in range(n_items)]
    items = pl.DataFrame(
        {
            "item_id": list(range(n_items)),
            "title": names,
            **{f"category_l{n + 1}": pl.Series([r[n] for r in rows], dtype=pl.String) for n in range(3)},
        }
    )
    users = pl.DataFrame({"user_id": sorted({u for u, _, _ in purchases})})
    events = pl.DataFrame(
        {
            "user_id": [u for u, _, _ in purchases],
            "item_id": [i for _, i, _ in purchases],
            "timestamp": [START + timedelta(days=d) for _, _, d in purchases],
            "click": [1] * len(purchases),
        }
    )
    return Dataset.from_tables(Tables(items, users, events, "small"))


def examples(rows: list[tuple[int, float, int]]) -> pl.DataFrame:
    """Examples from (user, day, target)."""
    return pl.DataFrame(
        {
            "example": [str(k) for k in range(len(rows))],
            "user": [u for u, _, _ in rows],
            "as_of": [micros(d) for _, d, _ in rows],
            "target": [t for _, _, t in rows],
        },
        schema_overrides={"user": pl.UInt32, "target": pl.UInt32, "as_of": pl.Int64},
    )


class WordEmbedder:
    """Sum of a pseudo-random vector a word, normalised: texts that share words are near."""

    name, version, dimension = "words", "1", 64

    def encode(self, texts: list[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts):
            for word in text.casefold().replace(";", " ").replace(":", " ").split():
                row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dimension)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
