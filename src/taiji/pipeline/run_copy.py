"""Implementation of `taiji copy`, which writes marketing texts (copies) about the items of a run or of a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.copywriting.copy_categories import copy_categories
from taiji.copywriting.copy_job import fitted_to_pairs, left_out, write_copies
from taiji.copywriting.copy_pairs import COUNTS, copy_pairs
from taiji.copywriting.copy_review import judged_pairs
from taiji.copywriting.evidence import COMMENT_COLUMNS, Evidence, gather_evidence
from taiji.core.artifacts import make_folder, write_json, write_parquet
from taiji.core.errors import InputError
from taiji.core.manifests import MANIFEST, Verifier, write_manifest
from taiji.core.number_format import counted
from taiji.data import open_dataset
from taiji.data.availability import EPOCH, EVER, FROM, MICROSECOND, bound_times
from taiji.data.knowledge_rows import listed_at
from taiji.data.schema import level_names
from taiji.data.sources.files import read_table

if TYPE_CHECKING:
    from taiji.alignment.text_reward_model import TextRewardModel
    from taiji.config import Config
    from taiji.copywriting.copy_writers import CopyWriter

logger = logging.getLogger(__name__)
STAGE = "copywriting"
"""Folder in a run with the table of texts, the facts about the items, and a reward model trained by this command."""
REVIEW = Path("review") / "copies"
"""Folder in a run with the choices of reviewers, one file per person."""
SHOWN = 5
"""Number of chosen texts to print."""


@dataclass(frozen=True)
class Catalogue:
    """Items to write texts about.

    Attributes:
        items: table with one row per item.
        levels: category columns.
        listed: listing time of each item in microseconds since the epoch.
        end: latest time of the source in microseconds since the epoch; 0 if the source has no times.
        domain: domain of the category files.
    """

    items: pl.DataFrame
    levels: tuple[str, ...]
    listed: Sequence[int]
    end: int
    domain: str


def run_catalogue(run: Path, domain: str | None = None) -> Catalogue:
    """Return the items of the finished stage `data` of a run.

    Raises:
        ArtifactError: the stage has not run, or its files are damaged.
    """
    Verifier().demand(run, ["data"])
    dataset = open_dataset(run / "data" / "dataset")
    end = dataset.scan().select(pl.col("time").max()).collect().item()
    return Catalogue(
        dataset.items, dataset.levels, listed_at(dataset).tolist(), int(end or 0), domain or dataset.domain
    )


def table_catalogue(file: Path, domain: str) -> Catalogue:
    """Return the items of a table (Parquet, CSV, Excel, JSON lines).

    Raises:
        InputError: the table cannot be read, or has no column ``item_id`` with unique values.
    """
    items = read_table(file)
    if fault := _no_items(items):
        raise InputError(
            "The table is not a table of items.",
            where=str(file),
            expected="a column item_id with unique values; optionally title, category_l1, …, description and further columns",
            found=fault,
        )
    if "title" not in items.columns:
        logger.warning("The items of %s have no column title, only %s.", file, ", ".join(items.columns))
    listed = bound_times(items, FROM, EVER.min)
    return Catalogue(items, level_names(items.columns), listed.tolist(), max(int(listed.max(initial=0)), 0), domain)


def _no_items(items: pl.DataFrame) -> str:
    """Return the reason why a table is not a table of items, or an empty string if it is one."""
    if "item_id" not in items.columns:
        return f"columns {', '.join(items.columns) or 'none'}"
    if items["item_id"].null_count():
        return f"row {int(items['item_id'].is_null().arg_max() or 0) + 1} without item_id"
    twice = items["item_id"].filter(items["item_id"].is_duplicated())
    return f"item {twice[0]} {(items['item_id'] == twice[0]).sum()} times" if len(twice) else ""


def make_copies(
    folder: Path,
    catalogue: Catalogue,
    config: Config,
    comments: Path | None = None,
    results: Path | None = None,
    reward: Path | None = None,
    reviewed: bool = False,
) -> dict[str, Any]:
    """Write texts about items into ``folder/copywriting``.

    Args:
        folder: run directory.
        catalogue: items to write texts about.
        config: configuration; its sections ``copywriting``, ``language``, ``embedder`` and ``reasoning.endpoint`` are
            used.
        comments: table with the columns :data:`taiji.copywriting.evidence.COMMENT_COLUMNS`.
        results: table that counts, for each text, how often it was sent and clicked; a reward model is trained on it.
        reward: folder of a trained reward model.
        reviewed: True to train a reward model on the choices of reviewers, and on ``results`` if given.

    Returns:
        counts, and some of the chosen texts.
    """
    settings, out = config.copywriting, folder / STAGE
    comment_rows = None if comments is None else _comments(comments, catalogue.items)
    end = catalogue.end
    if comment_rows is not None and len(comment_rows):
        end = max(end, int(comment_rows["time"].max()))  # type: ignore[arg-type]
    count = len(catalogue.items) if settings.items is None else settings.items
    evidence = gather_evidence(
        catalogue.items.head(count), catalogue.levels, end + 1, catalogue.listed[:count], comment_rows
    )
    categories = copy_categories(settings, catalogue.domain)
    model = _reward_model(config, folder, results, reward, reviewed)
    table = write_copies(
        evidence, categories, _writer(config, folder), settings, folder / ".work" / STAGE, config.seed, model
    )
    make_folder(out)
    (out / MANIFEST).unlink(missing_ok=True)
    write_parquet(out / "copies.parquet", table)
    write_parquet(out / "facts.parquet", _facts(evidence))
    if model is not None and reward is None:
        model.save(out / "reward_model")
    found = {
        "items": len(evidence),
        "items with evidence": sum(one.tells for one in evidence),
        "items with a copy": int(table["chosen"].sum()),
        "copies written": len(table),
        "copies that may be sent": int(table["copy"].is_not_null().sum()),
        "left out": left_out(table),
        "reward model": None if model is None else model.version,
        "tokens": int(table.select(pl.sum("prompt_tokens") + pl.sum("completion_tokens")).item()),
    }
    write_json(out / "copies.json", found)
    write_manifest(out, {"seconds": 0.0, "facts": {}})
    chosen = table.filter(pl.col("chosen")).head(SHOWN)
    return found | {
        "table": str(out / "copies.parquet"),
        "chosen": chosen.select("item_id", "category", "copy", "score", "propensity").to_dicts(),
    }


def print_copies(found: dict[str, Any]) -> None:
    """Print the numbers of written and rejected texts, and some of the chosen ones."""
    print(
        f"{found['items with a copy']:,} of {found['items']:,} items have a text; "
        f"{found['copies that may be sent']:,} of {found['copies written']:,} texts passed the checks"
    )
    for reason, count in found["left out"].items():
        print(f"  rejected: {count:,} {reason}")
    if found["left out"]:
        print("  (a text may be rejected for several reasons; docs/copywriting.md explains them)")
    print(
        "chosen "
        + (
            "uniformly at random: there is no reward model yet"
            if found["reward model"] is None
            else f"by {found['reward model']}"
        )
    )
    for row in found["chosen"]:
        score = "" if row["score"] is None else f", score {row['score']:+.2f}"
        print(f"  {row['item_id']} ({row['category']}{score}, propensity {row['propensity']:.2f}): {row['copy']}")
    print(f"\ntable: {found['table']}")


def _comments(path: Path, items: pl.DataFrame) -> pl.DataFrame:
    """Read a table of comments. Comments without an item, a text or a time are left out with a warning.

    Raises:
        InputError: a column is missing, or a time is invalid or in the future.
    """
    given = read_table(path)
    missing = [name for name in COMMENT_COLUMNS if name not in given.columns]
    if missing:
        raise InputError(
            "The table is not a table of comments.",
            where=str(path),
            expected=f"columns {', '.join(COMMENT_COLUMNS)}",
            found=f"no {', '.join(missing)}",
            fix="add the time of every comment, because later comments must not be used as evidence",
        )
    known = given.filter(pl.all_horizontal(pl.col(*COMMENT_COLUMNS).is_not_null()))
    if len(known) < len(given):
        logger.warning(
            "%d of %d comments lack an item, a text or a time, and are not used as evidence: %s.",
            len(given) - len(known),
            len(given),
            path,
        )
    known = known.with_columns(time=pl.Series(bound_times(known, "time", 0, str(path)), dtype=pl.Int64))
    now = (datetime.now(UTC) - EPOCH) // MICROSECOND
    later = known.filter(pl.col("time") > now)
    if len(later):
        raise InputError(
            "Comments have times in the future.",
            where=str(path),
            expected="times before now, in UTC unless they have an offset; integers are microseconds since the epoch",
            found=f"{counted(len(later), 'comment')} with later times, the first about item {later['item_id'][0]}",
            fix="correct the column time, or remove these rows, because the time of the latest comment determines which evidence may be used",
        )
    ids = items["item_id"].cast(pl.String)
    unmatched = known.filter(~pl.col("item_id").cast(pl.String).is_in(ids.implode()))
    if len(unmatched):
        logger.warning(
            "%d of %d comments refer to items that are missing from the catalogue, such as %r (an id in the catalogue is %r): %s.",
            len(unmatched), len(known), str(unmatched["item_id"][0]), str(ids[0]) if len(ids) else "", path,
        )  # fmt: skip
    return known


def _reward_model(
    config: Config, folder: Path, results: Path | None, reward: Path | None, reviewed: bool
) -> TextRewardModel | None:
    from taiji.alignment.text_reward_model import MODEL_FILE, TextRewardModel
    from taiji.language.embed import load_embedder

    settings = config.copywriting.pairs
    pairs = []
    if results is not None:
        columns = read_table(results).columns
        typed = read_table(results, {name: "integer" if name in COUNTS else None for name in columns})
        pairs.append(copy_pairs(typed, settings, str(results)))
    if reviewed:
        pairs.append(judged_pairs(folder / REVIEW, settings.least_z))
        if pairs[-1].is_empty():
            raise InputError(
                "There are no reviews that prefer a text.",
                where=str(folder / REVIEW),
                expected="judgements that prefer one of two texts",
                found="none",
                fix=f"taiji review {folder} --copies --as NAME",
            )
    if pairs:
        return fitted_to_pairs(pl.concat(pairs), load_embedder(config.embedder.name, config.embedder.device))
    if reward is None:
        return None
    if not (reward / MODEL_FILE).is_file():
        raise InputError(
            "The folder contains no reward model.",
            where=str(reward),
            expected=f"a folder with {MODEL_FILE}, such as <run>/{STAGE}/reward_model, which --results writes",
            found="another folder" if reward.is_dir() else "no folder",
            fix="train one with --results first",
        )
    return TextRewardModel.load(reward)


def _writer(config: Config, folder: Path) -> CopyWriter:
    from taiji.copywriting.copy_writers import EndpointCopyWriter, LocalCopyWriter, RulesCopyWriter
    from taiji.language.vllm_engine import with_engine
    from taiji.pipeline.run_models import base_model
    from taiji.reasoning.endpoint import EndpointClient

    settings = config.copywriting
    if settings.kind == "rules":
        return RulesCopyWriter()
    if settings.kind == "endpoint":
        client = EndpointClient(config.reasoning.endpoint, settings.temperature, folder / "teacher")
        return EndpointCopyWriter(client)
    return LocalCopyWriter(with_engine(base_model(config), config.language), settings)


def _facts(evidence: Sequence[Evidence]) -> pl.DataFrame:
    rows = [(one.item_id, fact.source, fact.name, fact.text, fact.time) for one in evidence for fact in one.facts]
    kinds = {"item_id": pl.String, "source": pl.String, "name": pl.String, "text": pl.String, "time": pl.Int64}
    return pl.DataFrame(rows, schema=kinds, orient="row")
