"""Partitions in this process."""

from __future__ import annotations

from functools import partial

import pytest
from tests.pipeline.mappers import ROWS, MapperSuite, doubling, traces

from taiji.pipeline.partitions import LocalMapper, map_rows


class TestLocalMapper(MapperSuite):
    @pytest.fixture
    def mapper(self):
        return LocalMapper()


def test_a_killed_job_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(ValueError, match="hiccuped"):
        map_rows(LocalMapper(), partial(doubling, tmp_path / "t", "always"), ROWS, 2, tmp_path / "p")
    assert traces(tmp_path / "t", "done") == 2
    assert len(map_rows(LocalMapper(), partial(doubling, tmp_path / "t"), ROWS, 2, tmp_path / "p")) == 10
    assert traces(tmp_path / "t", "done") == 5
