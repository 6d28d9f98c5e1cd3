"""A small shop on disk, a tiny language model and sizes to match: the real loop runs through in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import yaml

from taiji.core.artifacts import write_json
from taiji.core.manifests import write_manifest

# The processes of documented commands read the sizes below: torch and transformers would cost each of them seconds.
if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from taiji.data.dataset import Dataset

MAPPING = """\
name: small-shop
items:
  file: items.csv
  item_id: sku
  title: name
  category_l1: aisle
  category_l2: shelf
  price: price
events:
  file: log.csv
  user_id: who
  item_id: what
  timestamp: {column: at, unit: s}
  click: bought
  conversion: again
"""


def write_shop(folder: Path, users: int = 40, items: int = 60, events: int = 4000, seed: int = 0) -> Path:
    """A log in which every user prefers some aisles; half of the exposures are bought."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    aisle = rng.integers(0, 5, items)
    catalogue = pl.DataFrame(
        {
            "sku": [f"S{i}" for i in range(items)],
            "name": [f"{['oat', 'rye', 'plum', 'mint', 'corn'][a]} thing {i}" for i, a in enumerate(aisle)],
            "aisle": [f"aisle {a}" for a in aisle],
            "shelf": [f"shelf {a}-{i % 3}" for i, a in enumerate(aisle)],
            "price": np.round(rng.uniform(1, 9, items), 2),
        }
    )
    who, what = rng.integers(0, users, events), rng.integers(0, items, events)
    likes = rng.integers(0, 5, (users, 2))
    wanted = (likes[who] == aisle[what][:, None]).any(1)
    bought = rng.random(events) < np.where(wanted, 0.8, 0.25)
    log = pl.DataFrame(
        {
            "who": [f"u{u}" for u in who],
            "what": [f"S{i}" for i in what],
            "at": np.sort(rng.integers(1_600_000_000, 1_610_000_000, events)),
            "bought": bought.astype(int),
            "again": (bought & (rng.random(events) < 0.4)).astype(int),
        }
    )
    catalogue.write_csv(folder / "items.csv")
    log.write_csv(folder / "log.csv")
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder


def configuration(shop: Path, model: Path) -> dict:
    """Sizes at which every stage does its real work in about a second."""
    return {
        "data": {"source": str(shop)},
        "language": {"model": str(model), "dtype": "float32"},
        "size": {
            "rationale_prompts": 8,
            "calibration_prompts": 4,
            "alignment_prompts": 6,
            "test_prompts": 6,
            "feature_users": 12,
            "chunk": 4,
        },
        "reasoning": {
            "prompts": {"history_limit": 4, "token_budget": 1200},
            "teacher": {"max_new_tokens": 8, "rationales": 2},
            "selection": {"rule": "none"},
            "audit": {"controls": 4, "decoys": 1, "blind": 2, "resamples": 20},
            "sft": {"batch_size": 4, "gradient_accumulation": 1, "max_length": 2048},
        },
        "alignment": {
            "prompts_per_step": 2,
            "generations": 2,
            "micro_batch": 4,
            "max_completion_tokens": 8,
            "checkpoint_every": 1,
        },
        "generation": {"max_new_tokens": 8},
        "ranking": {"epochs": 1, "history": 10, "neighbour": 10, "hidden": [16]},
        "evaluation": {"resamples": 20},
        "ladder": {"seeds": 0},
    }


def end_often(model: PreTrainedModel) -> None:
    """Let every eighth token end a text: one with random weights never says its own, and what a limit cuts is not
    taught."""
    model.generation_config.eos_token_id = [2, *range(7, model.config.vocab_size, 8)]


def write_model(folder: Path) -> Path:
    """A two-layer language model with random weights, as a `save_pretrained` folder."""
    from taiji.language.tiny import tiny_causal_lm

    model, tokenizer = tiny_causal_lm()
    end_often(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_config(path: Path, shop: Path, model: Path) -> Path:
    """:func:`configuration` as a file."""
    path.write_text(yaml.safe_dump(configuration(shop, model)))
    return path


def write_features_run(folder: Path, dataset: Dataset, rows: pl.DataFrame, test: int, quantizer: str = "q-one") -> Path:
    """The parts of a run with features that another run reads; its users and items are numbered the other way round,
    and one more each.

    Args:
        dataset: of the reader. rows: user_id, as_of, ids, neighbour_items (their ids as text). test: microseconds, the
            start of its test period.
    """
    from taiji.features.feature_table import SCHEMA

    for kind, ids in (("user", dataset.users["user_id"]), ("item", dataset.items["item_id"])):
        names = ["only there", *ids.cast(pl.String).reverse()]
        (folder / "data" / "dataset").mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame({kind: np.arange(len(names)), f"{kind}_id": names})
        frame.write_parquet(folder / "data" / "dataset" / f"{kind}s.parquet")
        if kind == "user":
            rows = rows.join(frame, on="user_id", how="left", maintain_order="left")
        else:
            numbers = dict(zip(names, range(len(names))))
            lists = [None if items is None else [numbers[item] for item in items] for items in rows["neighbour_items"]]
    table = rows.with_columns(
        neighbour_items=pl.Series(lists, dtype=pl.List(pl.UInt32)),
        available_at=pl.col("as_of"),
        neighbour=pl.lit(0),
        similarity=pl.lit(0.5),
        vector=pl.lit(None),
        model_version=pl.lit("m-one"),
        quantizer_version=pl.lit(quantizer),
    )
    for stage in ("examples", "features"):
        (folder / stage).mkdir(exist_ok=True)
    write_json(folder / "examples" / "split.json", {"bounds": [0, 1, 2, test, test + 1]})
    table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(
        folder / "features" / "taiji.parquet"
    )
    for stage in ("data", "examples", "features"):
        write_manifest(folder / stage, {})
    return folder


def random_rows(dataset: Dataset, times: list[int], seed: int = 0) -> pl.DataFrame:
    """A feature row of every user at each of some times, for :func:`write_features_run`."""
    random, users = np.random.default_rng(seed), dataset.users["user_id"].cast(pl.String).to_list()
    items = dataset.items["item_id"].cast(pl.String).to_list()
    return pl.DataFrame(
        [
            {
                "user_id": user,
                "as_of": time,
                "ids": random.integers(0, 4, 3).tolist(),
                "neighbour_items": random.choice(items, 1 + place % 4).tolist(),
            }
            for time in times
            for place, user in enumerate(users)
        ]
    )
