"""Partitions on Ray: what every mapper must do, retries, and what is said when Ray is not there."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from tests.pipeline.mappers import ROWS, MapperSuite, doubling, traces

from taiji.config import ScaleSettings
from taiji.core.errors import ResourceError, TaijiError
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
    with pytest.raises(TaijiError, match="1 partition failed 2 times") as caught:
        map_rows(cluster, partial(doubling, tmp_path / "t", "always"), ROWS, 3, tmp_path / "p")
    assert "hiccuped" in caught.value.found and "--resume" in caught.value.fix
    assert traces(tmp_path / "t", "done") == 3


def test_more_partitions_than_workers_open_one_worker(cluster, tmp_path):
    map_rows(cluster, partial(doubling, tmp_path / "t"), ROWS, 1, tmp_path / "p")
    assert traces(tmp_path / "t", "opened") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpus_per_worker": 1}, ("gpus_per_worker=1", "0 GPUs")),
        ({"cpus_per_worker": 10_000}, ("cpus_per_worker=10000", "CPU")),
        ({"memory_gb_per_worker": 10**6}, ("memory_gb_per_worker=1e+06", "GiB of memory")),
    ],
    ids=["no GPU", "more cores than any machine has", "more memory than any machine has"],
)
def test_workers_that_no_machine_can_hold_are_rejected_before_the_start(cluster, tmp_path, settings, words):
    from taiji.scale.ray_mapper import RayMapper, connect

    wanted = ScaleSettings(**settings)
    with pytest.raises(ResourceError, match="No machine of the Ray cluster can hold a worker") as caught:
        connect(None, wanted)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(ResourceError, match="can hold a worker"):  # the machine that could has left since
        map_rows(RayMapper(wanted), partial(doubling, tmp_path / "t"), ROWS, 3, tmp_path / "p")
    assert not traces(tmp_path / "t", "opened")


def test_room_is_counted_machine_by_machine(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'taiji[scale]')")
    from taiji.scale.ray_mapper import room

    machines = [{"CPU": 4.0, "GPU": 1.0, "memory": 8 * 2.0**30}, {"CPU": 32.0, "memory": 64 * 2.0**30}, {"GPU": 8.0}]
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    assert room(ScaleSettings()) == 36
    assert room(ScaleSettings(gpus_per_worker=0.5)) == 2
    assert room(ScaleSettings(cpus_per_worker=2, memory_gb_per_worker=6)) == 1 + 10
    with pytest.raises(ResourceError, match=r"4 CPUs, 1 GPU, 8\.0 GiB of memory; 32 CPUs, 0 GPUs"):
        room(ScaleSettings(cpus_per_worker=8, gpus_per_worker=1))


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
