"""Two nodes on one machine: a node is killed in the middle of a stage, nothing is lost, and the result is the one of a
single process."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from tests.integration.test_loop import artefacts

from taiji.config import ScaleSettings, load_config
from taiji.pipeline.engine import Run
from taiji.pipeline.partitions import map_rows
from taiji.pipeline.recipes import ENHANCE

pytest.importorskip("ray", reason="Ray is not installed (pip install 'taiji[scale]')")
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
PROMPT = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}
"""A dead node is noticed in ten seconds instead of Ray's usual half minute."""


@pytest.fixture
def nodes():
    """A cluster of a head and a second raylet, each with room for one worker, and the mapper that uses both."""
    import ray
    from ray.cluster_utils import Cluster

    from taiji.scale.ray_mapper import connect

    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "_system_config": PROMPT}
    )
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    yield cluster, second, connect(cluster.address, ScaleSettings(workers=2))
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(autouse=True)
def soon():
    """A cluster that stands still shall fail its test, not hold up the suite."""

    def late(*_: object) -> None:
        raise TimeoutError("a quarter of an hour was not enough")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(900)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def kill_when(ready, cluster, node, found: dict) -> threading.Thread:
    """Kill the node's raylet and with it its workers, with SIGKILL, as soon as ``ready()``."""

    def watch() -> None:
        until = time.monotonic() + 600
        while not ready():
            if time.monotonic() > until:
                return
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        found["killed"] = time.monotonic()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def slowly(folder: Path):
    """Work that leaves traces, and begins only when both nodes have come to work."""
    import ray

    node = ray.get_runtime_context().get_node_id()

    def work(part: pl.DataFrame) -> pl.DataFrame:
        trace = folder / f"{part['x'][0]}@{node}"
        trace.touch()
        until = time.monotonic() + 300
        while len({path.name.split("@")[1] for path in folder.glob("*@*")}) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        trace.rename(folder / f"{trace.name}@done")
        return part.with_columns(square=pl.col("x") ** 2)

    return work


def test_what_a_dead_node_had_in_hand_is_done_by_the_other(nodes, tmp_path):
    cluster, second, mapper = nodes
    traces, parts = tmp_path / "traces", tmp_path / "parts"
    traces.mkdir()
    in_hand: list[str] = []

    def on_second() -> bool:
        """The second node has done a partition and is in the middle of another."""
        in_hand[:] = [path.name.split("@")[0] for path in traces.glob(f"*@{second.node_id}")]
        return bool(in_hand) and any(traces.glob(f"*@{second.node_id}@done"))

    found: dict = {}
    watcher = kill_when(on_second, cluster, second, found)
    out = map_rows(mapper, partial(slowly, traces), pl.DataFrame({"x": range(20)}), 1, parts)
    watcher.join()
    assert out["square"].to_list() == [x**2 for x in range(20)]
    assert found and alive() == 1
    assert len(list(parts.glob("part-*.parquet"))) == 20
    survivor = next(path.name.split("@")[1] for path in traces.glob("*@*") if second.node_id not in path.name)
    # A worker may outlive its raylet for a moment and finish what it has in hand: same rows, one file.
    unfinished = [number for number in in_hand if not (traces / f"{number}@{second.node_id}@done").exists()]
    for number in unfinished:
        assert (traces / f"{number}@{survivor}@done").exists(), "begun on the dead node, finished on the other"


@pytest.mark.slow
def test_the_loop_on_two_nodes_one_of_which_dies_gives_what_one_process_gives(nodes, small_config, tmp_path):
    cluster, second, mapper = nodes
    config = load_config(small_config, overrides=["size.chunk=1"])
    Run(tmp_path / "local", config, ENHANCE, lambda text: None).execute()
    scratch = tmp_path / "ray" / ".work" / "answers" / "scratch" / "base"
    found: dict = {}

    def under_way() -> bool:
        found["parts"] = len(list(scratch.glob("part-*.parquet")))
        return found["parts"] > 0

    watcher = kill_when(under_way, cluster, second, found)
    Run(tmp_path / "ray", config, ENHANCE, lambda text: None, mapper).execute()
    watcher.join()
    assert "killed" in found and 0 < found["parts"] < config.size.test_prompts and alive() == 1
    assert artefacts(tmp_path / "ray") == artefacts(tmp_path / "local")
