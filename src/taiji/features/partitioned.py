"""As-of join of exposures and features in separate ranges of users, for logs and feature tables that are larger than
memory.

An exposure needs only the feature rows of its own user, so each range of users can be joined separately. The output
files are the input of :func:`taiji.models.ranking.stream.train_streamed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.artifacts import file_hash, read_json, value_hash, write_json, write_parquet
from taiji.core.errors import ArtifactError
from taiji.core.progress import progress
from taiji.data import Dataset, Split, exposures, scan_exposures
from taiji.data.history import even_ranges
from taiji.features.feature_table import FEATURES, join_features


def join_partitioned(
    dataset: Dataset,
    split: Split,
    period: str,
    table: str | Path,
    folder: str | Path,
    columns: tuple[str, ...] = FEATURES,
    rows: int = 500_000,
) -> list[Path]:
    """Write a period's exposures, joined with their users' features, to one Parquet file per range of users.

    Args:
        dataset: dataset of the exposures, preferably opened by :func:`taiji.data.open_dataset`, so that it stays on
            disk.
        split: periods of the dataset.
        period: period of the exposures.
        table: Parquet file of feature rows.
        folder: output folder for ``part-00000.parquet`` … and ``join.json``, which describes the join. Files that exist
            already are kept, so that an interrupted join can be resumed.
        columns: features to join.
        rows: approximate number of exposures per file. The exposures of one file and the feature rows of its users are
            in memory at a time.

    Returns:
        Paths of the files, in the order of the user ranges. The rows of a file keep the order of the log. Together, the
        files contain the rows of ``join_features(exposures(dataset, split, period), table)``.

    Raises:
        ArtifactError: the folder contains files of a different join.
    """
    folder = Path(folder)
    ranges = _ranges(dataset, split, period, rows)
    files = [folder / f"part-{number:05d}.parquet" for number in range(len(ranges))]
    interval = split.interval(period)
    of = {"interval": [*interval], "columns": [*columns], "users": [[*users] for users in ranges]}
    _demand_same(folder, {**of, "exposures": _content(dataset, split, period), "table": file_hash(table)})
    features = pl.scan_parquet(table)
    with progress("Joining features", len(ranges), "ranges of users") as update:
        for number, (file, users) in enumerate(zip(files, ranges), start=1):
            if not file.exists():
                mine = features.filter(pl.col("user").is_between(*users, closed="left")).collect()
                write_parquet(file, join_features(exposures(dataset, split, period, users), mine, columns))
            update(number)
    return files


def _demand_same(folder: Path, join: dict[str, Any]) -> None:
    """Raise an error if the folder has files of a different join. If it has no files of a join, write ``join.json``."""
    note = folder / "join.json"
    if note.exists() or any(folder.glob("part-*.parquet")):
        before = read_json(note) if note.exists() else {}
        if before != join:
            other = [name for name in join if before.get(name) != join[name]]
            raise ArtifactError(
                "The folder contains files of another join.",
                where=str(folder),
                expected="an empty folder, or an interrupted join of the same exposures and features",
                found=f"{note.name} with other values of {', '.join(other)}" if before else f"no {note.name}",
                fix="choose another folder, or delete this one",
            )
        return
    write_json(note, join)


def _content(dataset: Dataset, split: Split, period: str) -> str:
    """Return a hash of a period's exposures, regardless of their order."""
    scan = scan_exposures(dataset, split, period)
    total = scan.select(pl.struct(pl.all()).hash().sum()).collect(engine="streaming").item()
    return value_hash([str(total), [[name, str(kind)] for name, kind in scan.collect_schema().items()]])


def _ranges(dataset: Dataset, split: Split, period: str, rows: int) -> list[tuple[int, int]]:
    """Return half-open ranges of dense user ids with about ``rows`` exposures each."""
    counts = scan_exposures(dataset, split, period).group_by("user").len().collect(engine="streaming")
    exposed = np.zeros(dataset.n_users + 1, np.int64)
    exposed[counts["user"].to_numpy().astype(np.int64) + 1] = counts["len"].to_numpy()
    return even_ranges(np.cumsum(exposed), rows)
