"""Use your own ranker instead of the built-in one: a callable, an ONNX file, or an HTTP endpoint that scores user-item
pairs.

The same function can compute rewards for alignment (through the reward table) and evaluate the answers of the models.
"""

import numpy as np
import polars as pl

from taiji.data import Dataset, Tables
from taiji.models.ranking.external import CallableRanker


def my_ranker(frame: pl.DataFrame) -> np.ndarray:
    """Stand-in for your model. It prefers cheap items, and the item with the same number as the user."""
    same = frame["user_id"].str.slice(1) == frame["item_id"].str.slice(1)
    return (0.2 / (1 + frame["price"].fill_null(5.0)) + 0.5 * same.cast(pl.Float64)).to_numpy()


def score(user_ids, item_ids, timestamps):
    """Return one score per pair. Taiji calls this function with the ids of your tables and the timestamp (UTC) of each
    pair."""
    return my_ranker(
        pl.DataFrame(
            {"user_id": user_ids, "item_id": item_ids, "price": [None] * len(user_ids)},
            schema_overrides={"price": pl.Float64},
        )
    )


if __name__ == "__main__":
    events = pl.DataFrame(
        {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "timestamp": [1, 2], "click": [1, 1]}
    ).cast({"timestamp": pl.Datetime("us")})
    tables = Tables(
        pl.DataFrame({"item_id": ["i1", "i2"], "title": ["oat milk", "rye bread"]}),
        pl.DataFrame({"user_id": ["u1", "u2"]}),
        events,
        "example",
    )
    dataset = Dataset.from_tables(tables)
    ranker = CallableRanker(dataset, "examples.own_ranker:score")
    print(ranker.score_pairs(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([5, 5, 5, 5])))
    print("in a run: taiji run --set own_ranker.reward=examples.own_ranker:score")
