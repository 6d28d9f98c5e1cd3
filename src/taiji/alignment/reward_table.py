"""Reward table (offline environment): the candidate items of each prompt with the ranker's normalised scores.

In §5 of the Taiji paper, user-item pairs and their predicted scores are sampled beforehand, and reinforcement learning
looks up the rewards. Since an answer is open text, it is grounded in an item. In our definition, this item is the
candidate of the prompt whose embedding has the largest cosine similarity to that of the answer, by exact search.
Candidates are the items that the user was shown in the LLM period up to the prompt's cutoff, the most popular items
before that period, seeded random items, and the true target (all true targets, for a set answer). Apart from the
targets, nothing after the cutoff is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.alignment.settings import RewardTableSettings
from taiji.core.artifacts import atomic_file, atomic_folder, read_json, write_json, write_parquet
from taiji.core.errors import ArtifactError, InputError
from taiji.core.progress import progress
from taiji.metrics.baselines import popularity

if TYPE_CHECKING:
    from taiji.data import Dataset, Split
    from taiji.language.embed import Embedder
    from taiji.models.ranking.external import PairScorer

SETS = "sets.parquet"
SCHEMA = {"example": pl.String, "item": pl.UInt32, "ctcvr": pl.Float64, "reward": pl.Float64}


@dataclass(frozen=True)
class Grounded:
    """Grounded answers, one entry per answer: item id, cosine similarity, CTCVR (the ranker's score), and min-max
    normalised CTCVR."""

    items: np.ndarray
    similarity: np.ndarray
    ctcvr: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True, eq=False)
class RewardTable:
    """Candidates and rewards of all examples.

    Attributes:
        rows: ``example, item, ctcvr, reward``; ``reward`` is the ranker's score ``ctcvr`` after min-max normalisation
            within the example. The candidates of an example are consecutive rows, ascending by item.
        targets: ``example, item``, in the order of the examples.
        item_ids: (V,) items that occur anywhere in the table, ascending; ``vectors`` (V, d) are their embeddings.
        embedder: version of the embedder.
        sets: ``example, items`` (lists): the next items of examples with set answers, in the order of the examples;
            None for single answers.
    """

    rows: pl.DataFrame
    targets: pl.DataFrame
    item_ids: np.ndarray
    vectors: np.ndarray
    embedder: str
    sets: pl.DataFrame | None = None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {example: place for place, example in enumerate(self.targets["example"])}

    @cached_property
    def _padded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return three arrays (E, C) over each example's candidates: position in ``vectors``, ``ctcvr`` and ``reward``.

        Positions are padded with -1, and the other two arrays with NaN.
        """
        lengths = self.rows.group_by("example", maintain_order=True).len()
        if lengths["example"].to_list() != self.targets["example"].to_list():
            raise ArtifactError("The rows and targets of the reward table do not match.", fix="build the table again")
        counts = lengths["len"].to_numpy()
        shape = (len(counts), int(counts.max()))
        inside = np.arange(shape[1])[None] < counts[:, None]
        tables = []
        for values, missing in (
            (np.searchsorted(self.item_ids, self.rows["item"].to_numpy()), -1),
            (self.rows["ctcvr"].to_numpy(), np.nan),
            (self.rows["reward"].to_numpy(), np.nan),
        ):
            table = np.full(shape, missing, dtype=np.asarray(values).dtype)
            table[inside] = values
            tables.append(table)
        return tables[0], tables[1], tables[2]

    def places(self, examples: Sequence[str]) -> np.ndarray:
        """Return the row of each example in ``targets``. Raise :class:`TaijiError` for an unknown example."""
        try:
            return np.array([self._places[example] for example in examples], dtype=np.int64)
        except KeyError as error:
            raise InputError(
                "The reward table does not contain this example.",
                found=str(error),
                expected="an example that the table was built for",
            ) from None

    def target_vectors(self, examples: Sequence[str]) -> np.ndarray:
        """Return the embedding (B, d) of each example's true item."""
        items = self.targets["item"].to_numpy()[self.places(examples)]
        return np.asarray(self.vectors[np.searchsorted(self.item_ids, items)])

    def set_vectors(self, examples: Sequence[str]) -> np.ndarray:
        """Return the embeddings (B, N, d) of each example's next items, padded with zeros.

        Raises:
            ArtifactError: the table was built for single answers.
        """
        if self.sets is None:
            raise ArtifactError(
                "The reward table was built for single answers.",
                expected="the next items of each example",
                found="one true item each",
                fix="choose the examples with reasoning.prompts.answer: set and build the reward table again",
            )
        chosen = self.sets["items"].gather(self.places(examples))
        out = np.zeros((len(chosen), int(chosen.list.len().max() or 0), self.vectors.shape[1]), np.float32)  # type: ignore[arg-type]
        for row, items in enumerate(chosen):
            out[row, : len(items)] = self.vectors[np.searchsorted(self.item_ids, items.to_numpy())]
        return out

    def candidate_vectors(self, examples: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings (B, C, d) and normalised rewards (B, C) of each example's candidates; the rewards of
        padding are NaN."""
        candidates, _, reward = (table[self.places(examples)] for table in self._padded)
        return self.vectors[np.maximum(candidates, 0)], reward

    def ground(self, examples: Sequence[str], embeddings: np.ndarray) -> Grounded:
        """Return, for each answer embedding (B, d), the nearest candidate of its example; ties go to the lowest item
        id."""
        places = self.places(examples)
        candidates, ctcvr, reward = (table[places] for table in self._padded)
        cosine = np.einsum("bd,bcd->bc", np.asarray(embeddings, dtype=np.float32), self.vectors[candidates])
        cosine[candidates < 0] = -np.inf
        best = cosine.argmax(1)
        pick = (np.arange(len(places)), best)
        return Grounded(self.item_ids[candidates[pick]], cosine[pick].astype(np.float64), ctcvr[pick], reward[pick])

    def save(self, folder: str | Path) -> None:
        """Write the table as Parquet, safetensors and JSON; equal tables give equal bytes."""
        from safetensors.numpy import save_file

        with atomic_folder(folder) as temporary:
            write_parquet(temporary / "environment.parquet", self.rows)
            write_parquet(temporary / "targets.parquet", self.targets)
            if self.sets is not None:
                write_parquet(temporary / SETS, self.sets)
            with atomic_file(temporary / "vectors.safetensors") as file:
                save_file(
                    {"items": np.ascontiguousarray(self.item_ids), "vectors": np.ascontiguousarray(self.vectors)}, file
                )
            write_json(
                temporary / "environment.json",
                {"embedder": self.embedder, "examples": len(self.targets), "rows": len(self.rows)},
            )

    @classmethod
    def load(cls, folder: str | Path) -> RewardTable:
        """Read a table that :meth:`save` wrote."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        about = read_json(folder / "environment.json")
        tensors = load_file(folder / "vectors.safetensors")
        return cls(
            pl.read_parquet(folder / "environment.parquet"),
            pl.read_parquet(folder / "targets.parquet"),
            tensors["items"],
            tensors["vectors"],
            about["embedder"],
            pl.read_parquet(folder / SETS) if (folder / SETS).exists() else None,
        )


def min_max(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Scale each segment of the values (N,) to [0, 1]. A constant segment becomes zero. ``offsets`` are the starts of
    the segments."""
    low, high = np.minimum.reduceat(values, offsets), np.maximum.reduceat(values, offsets)
    lengths = np.diff(np.append(offsets, len(values)))
    low, width = np.repeat(low, lengths), np.repeat(high - low, lengths)
    return np.divide(values - low, width, out=np.zeros_like(values), where=width > 0)


def build_reward_table(
    dataset: Dataset,
    split: Split,
    examples: pl.DataFrame,
    ranker: PairScorer,
    embedder: Embedder,
    settings: RewardTableSettings,
    seed: int,
    batch: int = 200_000,
    title_characters: int = 80,
) -> RewardTable:
    """Choose candidates, score them with the ranker at each example's cutoff (its ``as_of``), normalise the scores, and
    embed the items.

    Args:
        dataset: the log.
        split: periods of the dataset. Shown items are taken from the LLM period, popular items from before it.
        examples: ``example``, ``user``, ``as_of``, ``target`` and, for set answers, ``targets``, which are candidates
            as well.
        ranker: ranker trained on data before the LLM period.
        embedder: embedder of item texts.
        settings: numbers of candidates.
        seed: random seed; the random candidates of an example depend only on (seed, example).
        batch: number of user-item pairs scored at a time.
        title_characters: length to which titles are cut, as in the prompts.

    Raises:
        InputError: there are no examples, or a score is not finite.
    """
    from taiji.reasoning.prompts import item_lines

    if examples.is_empty():
        raise InputError("There are no examples to build a reward table for.", expected="at least one example")
    start, _ = split.interval("llm")
    popular = popularity(dataset, pl.DataFrame({"as_of": [start]}), settings.popular_candidates)[0]
    popular = popular[popular >= 0]
    shown = _exposed(dataset, examples, start, settings.exposed_candidates)
    chosen = []
    sets = examples["targets"].to_list() if "targets" in examples.columns else [[t] for t in examples["target"]]
    for number, (name, true) in enumerate(zip(examples["example"], sets)):
        key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
        drawn = np.random.default_rng(key).integers(0, dataset.n_items, settings.random_candidates)
        chosen.append(np.unique(np.concatenate([true, shown.get(number, []), popular, drawn]).astype(np.int64)))
    lengths = np.array([len(items) for items in chosen])
    items = np.concatenate(chosen)
    users, as_ofs = (np.repeat(examples[c].to_numpy().astype(np.int64), lengths) for c in ("user", "as_of"))
    scores = np.empty(len(items))
    with progress("Scoring candidates", len(items), "pairs") as update:
        for first in range(0, len(items), batch):
            part = slice(first, first + batch)
            scores[part] = ranker.score_pairs(users[part], items[part], as_ofs[part])
            update(min(first + batch, len(items)))
    if not np.isfinite(scores).all():
        raise InputError(
            "The ranker returned scores that are not finite.",
            found=f"{int((~np.isfinite(scores)).sum())} of {len(scores)}",
            fix="train the reward ranker again",
        )
    rows = pl.DataFrame(
        {
            "example": np.repeat(examples["example"].to_numpy(), lengths),
            "item": items.astype(np.uint32),
            "ctcvr": scores,
            "reward": min_max(scores, np.append(0, lengths.cumsum()[:-1])),
        },
        schema=SCHEMA,
    )
    known = np.unique(items)
    lines = item_lines(dataset, title_characters)
    vectors = np.asarray(embedder.encode([lines[i] for i in known]), dtype=np.float32)
    targets = examples.select("example", pl.col("target").alias("item").cast(pl.UInt32))
    coming = examples.select("example", items="targets") if "targets" in examples.columns else None
    return RewardTable(rows, targets, known, vectors, embedder.version, coming)


def _exposed(dataset: Dataset, examples: pl.DataFrame, start: int, count: int) -> dict[int, np.ndarray]:
    """Return the last ``count`` items that each example's user was shown from ``start`` up to and including the
    cutoff."""
    if not count:
        return {}
    events = (
        dataset.events.lazy()
        .filter(pl.col("exposed") & (pl.col("time") >= start))
        .select("event", "user", "item", "time")
    )
    asked = examples.lazy().select(pl.int_range(pl.len()).alias("number"), pl.col("user").cast(pl.UInt32), "as_of")
    joined = (
        asked.join(events, on="user", how="inner")
        .filter(pl.col("time") <= pl.col("as_of"))
        .sort(["number", "time", "event"], descending=[False, True, True])
        .group_by("number", maintain_order=True)
        .agg(pl.col("item").head(count))
        .collect()
    )
    return {number: np.asarray(items) for number, items in joined.iter_rows()}
