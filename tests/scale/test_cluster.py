"""The description of a cluster, and the plan as people read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scale.test_plan import CONFIG, LOG, RUN

from taiji.core.errors import TaijiError
from taiji.scale.cluster import load_cluster, print_plan
from taiji.scale.plan import Cluster, plan

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("cluster-*.yaml")), ids=lambda p: p.name)
def test_the_shipped_clusters_are_clusters(path):
    assert load_cluster(path).gpus > 0


def test_without_a_file_it_is_this_machine():
    assert load_cluster(None) == Cluster()


@pytest.mark.parametrize(("text", "message"), [("gpu: 3", "gpus"), ("workers: none", "workers"), ("a: [", "YAML")])
def test_a_file_that_describes_no_cluster_is_explained(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(TaijiError, match=message):
        load_cluster(tmp_path / "c.yaml")


def test_the_table_names_every_stage_and_says_what_it_rests_on(capsys):
    print_plan(plan(CONFIG, LOG.users, [RUN], load_cluster(CONFIGS / "cluster-paper.yaml")))
    said = capsys.readouterr().out
    assert all(word in said for word in ("rationales", "features", "GPU hours", "efficiency", "teacher"))
