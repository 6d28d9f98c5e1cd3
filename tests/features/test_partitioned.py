"""The join by ranges of users is the join in memory, and goes on after a kill."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
from tests.data.test_stored import log

from taiji.core.errors import ArtifactError
from taiji.data import exposures, open_dataset, time_split
from taiji.features.feature_table import SCHEMA, join_features
from taiji.features.partitioned import join_partitioned


@pytest.fixture
def case(tmp_path):
    log(5, 6000).save(tmp_path / "dataset")
    rng = np.random.default_rng(0)
    rows = 120
    table = pl.DataFrame(
        {
            "user": rng.integers(0, 30, rows),
            "as_of": rng.integers(0, 200, rows),
            "ids": [[int(n), 1] for n in range(rows)],
            "neighbour_items": [[int(n)] for n in range(rows)],
        },
        schema={name: SCHEMA[name] for name in ("user", "as_of", "ids", "neighbour_items")},
    )
    table.write_parquet(tmp_path / "table.parquet")
    dataset = open_dataset(tmp_path / "dataset")
    return dataset, time_split(dataset), table, tmp_path


@pytest.mark.parametrize("rows", [50, 10_000])
def test_it_holds_the_rows_of_the_join_in_memory(case, rows):
    dataset, split, table, folder = case
    columns = ("ids", "neighbour_items")
    files = join_partitioned(dataset, split, "ranker", folder / "table.parquet", folder / "joined", columns, rows)
    assert len(files) > 5 if rows == 50 else len(files) == 1
    joined = pl.concat([pl.read_parquet(file) for file in files])
    assert joined.sort("event").equals(join_features(exposures(dataset, split, "ranker"), table, columns).sort("event"))
    assert joined["ids"].null_count() < len(joined), "something was joined"


def test_a_killed_join_keeps_its_files(case):
    dataset, split, _, folder = case
    files = join_partitioned(dataset, split, "test", folder / "table.parquet", folder / "joined", ("ids",), 50)
    before = files[0].stat().st_mtime_ns
    files[1].unlink()
    again = join_partitioned(dataset, split, "test", folder / "table.parquet", folder / "joined", ("ids",), 50)
    assert again == files and files[0].stat().st_mtime_ns == before and files[1].exists()


def test_files_of_another_join_are_not_taken_for_its_own(case):
    dataset, split, table, folder = case
    joined = partial(join_partitioned, dataset, split, folder=folder / "joined", rows=50)
    file = folder / "table.parquet"
    joined("test", file, columns=("ids",))
    for period, columns in (("test", ("ids", "neighbour_items")), ("ranker", ("ids",))):
        with pytest.raises(ArtifactError, match="another join"):
            joined(period, file, columns=columns)
    table.head(len(table) // 2).write_parquet(file)
    with pytest.raises(ArtifactError, match="other values of table"):
        joined("test", file, columns=("ids",))
    table.write_parquet(file)
    corrected = replace(dataset, events=dataset.events.with_columns(conversion=1 - pl.col("conversion")))
    with pytest.raises(ArtifactError, match="other values of exposures"):
        join_partitioned(corrected, split, "test", file, folder / "joined", ("ids",), 50)
    assert joined("test", file, columns=("ids",))
    (folder / "joined" / "join.json").unlink()
    with pytest.raises(ArtifactError, match=r"no join\.json"):
        joined("test", file, columns=("ids",))
