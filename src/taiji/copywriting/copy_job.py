"""Copy job: turns evidence into a table of copies. An interrupted job continues with the first unfinished part of the
items."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from taiji.copywriting.copy_categories import Category, CopyPrompt, copy_prompt
from taiji.copywriting.copy_pairs import copy_pairs
from taiji.copywriting.copy_table import asked_hash, checked_rows, chosen_rows, scored_rows, written_rows
from taiji.copywriting.copy_writers import CopyWriter
from taiji.copywriting.evidence import Evidence
from taiji.copywriting.settings import CopywritingSettings, PairSettings
from taiji.core.artifacts import make_folder, read_parquet, value_hash, write_parquet
from taiji.core.errors import ArtifactError, InputError
from taiji.core.number_format import counted
from taiji.core.progress import track

if TYPE_CHECKING:
    from taiji.alignment.text_reward_model import TextRewardModel
    from taiji.language.embed import Embedder

logger = logging.getLogger(__name__)
PARTS = ".parts"
"""Folder next to the table. It stores the texts written so far, one file per part of the items."""

EXAMPLES = 3
"""Number of rejected copies that an error shows."""


def write_copies(
    evidence: Sequence[Evidence],
    categories: Sequence[Category],
    writer: CopyWriter,
    settings: CopywritingSettings,
    folder: str | Path,
    seed: int,
    model: TextRewardModel | None = None,
) -> pl.DataFrame:
    """Write, check, score and choose copies for items. Items without evidence get none.

    Args:
        evidence: evidence about each item.
        categories: categories of the copies.
        writer: writer of the copies.
        settings: candidates, checks and choice.
        folder: folder in which the written texts are kept, part by part.
        seed: random seed of sampling and choice.
        model: reward model that scores copies; None chooses among them uniformly.

    Returns:
        :data:`taiji.copywriting.copy_table.SCHEMA`, one row per candidate.

    Raises:
        InputError: no item has evidence, or no copy passes the checks.
    """
    told = [one for one in evidence if one.tells]
    if not told:
        raise InputError(
            "There is no evidence from which copy can be written.",
            where="items",
            expected="a title, a description or comments about the item",
            found=f"{counted(len(evidence), 'item')} without evidence" if evidence else "no items",
            fix="add titles or descriptions to the items, or use a table of comments (--comments)",
        )
    if len(told) < len(evidence):
        logger.warning("%d of %d items have no evidence and get no copy.", len(evidence) - len(told), len(evidence))
    parts, asked = [], []
    starts = range(0, len(told), settings.chunk)
    for start in track(starts, "Writing copy", unit="parts of the items"):
        prompts = [copy_prompt(one, c, settings) for one in told[start : start + settings.chunk] for c in categories]
        parts.append(_written(prompts, writer, settings.candidates, Path(folder), seed))
        asked += prompts
    table = scored_rows(checked_rows(pl.concat(parts), asked, settings.limits), model)
    _tell(table, Path(folder) / PARTS)
    return chosen_rows(table, settings.exploration, seed)


def _written(prompts: Sequence[CopyPrompt], writer: CopyWriter, n: int, folder: Path, seed: int) -> pl.DataFrame:
    """Return the texts for some prompts.

    They are read from disk if an earlier job made the same request, and written anew otherwise.
    """
    version = writer.version
    key = value_hash([[p.evidence.item_id, p.category.name, asked_hash(p, version)] for p in prompts] + [n, seed])[:24]
    file = folder / PARTS / f"{key}.parquet"
    if file.exists():
        try:
            return read_parquet(file)
        except ArtifactError:
            logger.warning("A file of written texts is damaged, so they are written again: %s.", file)
    rows = written_rows(prompts, writer.write(prompts, n, seed), version)
    make_folder(file.parent)
    write_parquet(file, rows)
    return rows


def _tell(table: pl.DataFrame, parts: Path) -> None:
    """Log a warning about rejected copies.

    Raises:
        InputError: all copies are rejected.
    """
    out = table.filter(pl.col("copy").is_null())
    if out.is_empty():
        return
    said = ", ".join(f"{count} {reason}" for reason, count in left_out(table).items())
    if len(out) == len(table):
        raise InputError(
            "No copy passed the checks.",
            where=str(parts),
            expected="copies that name and count only what the evidence contains",
            found="; ".join([said, *(f"{row['said']!r}: {row['reasons']}" for row in out.head(EXAMPLES).to_dicts())]),
            fix="use a larger model (language.model, copywriting.kind=endpoint), or change the category files or copywriting.limits; written texts are kept",
        )
    logger.warning("%d of %d copies are rejected, some for several reasons: %s.", len(out), len(table), said)


def left_out(table: pl.DataFrame) -> dict[str, int]:
    """Return the number of rejected copies by reason, most frequent first. A copy may have several reasons."""
    reasons = table.filter(pl.col("copy").is_null())["reasons"].str.split(", ").explode()
    return dict(Counter(sorted(reasons.to_list())).most_common())


def reward_model_of(results: pl.DataFrame, embedder: Embedder, settings: PairSettings) -> TextRewardModel:
    """Train the reward model on the results of sends.

    Args:
        results: see :func:`taiji.copywriting.copy_pairs.check_results`.
        embedder: embedder of the copies.
        settings: settings of the pairs.

    Raises:
        InputError: the results give no pair.
    """
    return fitted_to_pairs(copy_pairs(results, settings), embedder)


def fitted_to_pairs(pairs: pl.DataFrame, embedder: Embedder) -> TextRewardModel:
    """Return a reward model fitted to pairs (:data:`taiji.copywriting.copy_pairs.PAIRS`).

    The total weight of an item is proportional to the square root of its number of pairs.

    Raises:
        InputError: there is no pair.
    """
    from taiji.alignment.text_reward_model import TextRewardModel

    sides = [pairs.select("item_id", side, f"{side}_category").rows() for side in ("winner", "loser")]
    places = {key: place for place, key in enumerate(dict.fromkeys([*sides[0], *sides[1]]))}
    winners, losers = (np.array([places[key] for key in side], dtype=np.int64) for side in sides)
    weights = pairs.select((1.0 / pl.len().over("item_id").sqrt()).alias("weight"))["weight"].to_numpy()
    return TextRewardModel(embedder).fit(
        [text for _, text, _ in places],
        [category for _, _, category in places],
        winners,
        losers,
        pairs["item_id"].to_list(),
        weights / weights.mean() if len(pairs) else weights,
    )
