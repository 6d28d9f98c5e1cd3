"""Partitions on Ray: what every mapper must do, retries, and what is said when Ray is not there."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from tests.pipeline.mappers import ROWS, MapperSuite, doubling, traces

from taiji.config import ScaleSettings
from taiji.core.errors import TaijiError
from taiji.pipeline.partitions import map_rows


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'taiji[scale]')")
    from taiji.scale.ray_mapper import connect

    yield connect(None, ScaleSettings(workers=1, attempts=2))
    ray.shutdown()


class TestRayMapper(MapperSuite):
    @pytest.fixture
    def mapper(self, cluster):
        return cluster


def test_a_partition_that_fails_once_is_tried_again(cluster, tmp_path):
    out = map_rows(cluster, partial(doubling, tmp_path / "t", "once"), ROWS, 3, tmp_path / "p")
    assert out["twice"].to_list() == list(range(0, 20, 2))
    assert traces(tmp_path / "t", "failed") == 1 and traces(tmp_path / "t", "done") == 4


def test_one_that_fails_every_time_is_given_up_and_the_others_are_kept(cluster, tmp_path):
    with pytest.raises(TaijiError, match="1 partitions failed 2 times") as caught:
        map_rows(cluster, partial(doubling, tmp_path / "t", "always"), ROWS, 3, tmp_path / "p")
    assert "hiccuped" in caught.value.found and "--resume" in caught.value.fix
    assert traces(tmp_path / "t", "done") == 3


def test_more_partitions_than_workers_open_one_worker(cluster, tmp_path):
    map_rows(cluster, partial(doubling, tmp_path / "t"), ROWS, 1, tmp_path / "p")
    assert traces(tmp_path / "t", "opened") == 1


def test_a_cluster_that_is_not_there_is_one_message(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'taiji[scale]')")
    from taiji.scale.ray_mapper import connect

    def nobody(*args, **options):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(TaijiError, match="cannot be reached") as caught:
        connect("auto")
    assert "ray start --head" in caught.value.fix and "any running" in caught.value.found


def test_without_ray_it_says_what_to_install():
    code = "import sys; sys.modules['ray'] = None\nfrom taiji.scale.ray_mapper import connect\nimport taiji.core.errors\ntry:\n    connect()\nexcept taiji.core.errors.TaijiError as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "taiji[scale]" in done.stdout
