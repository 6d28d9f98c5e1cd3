"""What every mapper must do: the suite that each inherits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.pipeline.partitions import map_rows

ROWS = pl.DataFrame({"x": range(10), "name": [f"row {i}" for i in range(10)]})


def note(folder: Path, what: str) -> None:
    """Leave a trace that other processes can read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{what}-{uuid4().hex}").touch()


def traces(folder: Path, what: str) -> int:
    return len(list(folder.glob(f"{what}*")))


def doubling(folder: Path, fail: str = ""):
    """A work that doubles, and fails as it is told."""
    note(folder, "opened")

    def work(part: pl.DataFrame) -> pl.DataFrame:
        if 4 in part["x"]:
            if fail == "always" or (fail == "once" and not traces(folder, "failed")):
                note(folder, "failed")
                raise ValueError("the disk hiccuped")
            if fail == "explained":
                raise TaijiError("A prompt is too long.", where="example 4", fix="shorten it")
        note(folder, f"done{part['x'][0]}")
        return part.select(twice=pl.col("x") * 2, name=pl.col("name"))

    return work


class MapperSuite:
    """Inherit it and provide the fixture ``mapper``."""

    def test_outputs_come_in_the_order_of_the_rows(self, mapper, tmp_path):
        counts = []
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / ".tmp-1-00000000-part-00000-0123456789abcdef.parquet").write_bytes(
            b"PAR1 half written when a node died"
        )
        out = map_rows(mapper, partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p", counts.append)
        assert out.equals(ROWS.select(twice=pl.col("x") * 2, name=pl.col("name")))
        assert counts == sorted(counts) and counts[-1] == 10 and len(counts) == 4

    def test_what_is_done_is_not_done_again(self, mapper, tmp_path):
        first = map_rows(mapper, partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p")
        before = traces(tmp_path / "t", "done")
        again = map_rows(mapper, partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p")
        assert again.equals(first) and traces(tmp_path / "t", "done") == before == 4
        next((tmp_path / "p").glob("part-00001-*")).unlink()
        opened = traces(tmp_path / "t", "opened")
        assert map_rows(mapper, partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p").equals(first)
        assert traces(tmp_path / "t", "done") == 5 and traces(tmp_path / "t", "opened") == opened + 1
        changed = ROWS.with_columns(x=pl.when(pl.col("x") == 7).then(70).otherwise("x"))
        assert map_rows(mapper, partial(doubling, tmp_path / "t"), changed, 3, tmp_path / "p")["twice"][7] == 140
        assert traces(tmp_path / "t", "done") == 6, "other rows are another partition, and only that one"

    def test_an_error_the_user_can_mend_arrives_whole_and_the_rest_is_kept(self, mapper, tmp_path):
        with pytest.raises(TaijiError, match="too long") as caught:
            map_rows(mapper, partial(doubling, tmp_path / "t", "explained"), ROWS, 3, tmp_path / "p")
        assert (caught.value.where, caught.value.fix) == ("example 4", "shorten it")
        assert map_rows(mapper, partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p")["twice"].to_list() == list(
            range(0, 20, 2)
        )
        assert 4 <= traces(tmp_path / "t", "done") <= 5, (
            "what was in hand when the run stopped may be done again, nothing else"
        )
