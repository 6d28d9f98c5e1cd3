"""`taiji recommend`: from a log to fitted components, their worth and their cost, resumed and skipped like every
run."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tests.integration.test_loop import command, environment, taiji
from tests.tiny import write_shop

from taiji.cascade.assembly import make_cascade
from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.core.component import Requests
from taiji.core.manifests import read_manifest
from taiji.data import time_split
from taiji.data.dataset import Dataset
from taiji.models.ranking.train import load_ranker
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.pipeline.engine import Context, Run
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.pipeline.stages.fusion_stage import load_fuser

RETRIEVERS = {
    "popular": {"model": "popularity", "half_life_days": 7},
    "together": {"model": "cooccurrence"},
    "sasrec": {"model": "sasrec", "width": 8, "layers": 1, "epochs": 2, "history": 10, "negatives": 0},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recommend")
    values = {
        "data": {"source": str(write_shop(folder / "shop"))},
        "ranking": {"epochs": 1, "min_steps": 10, "dimension": 4, "hidden": [8]},
        "recommend": {"retrievers": RETRIEVERS, "depths": [5, 20], "length": 5, "most_per_category": 2},
        "evaluation": {"resamples": 50},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(values))
    return folder / "shop.yaml"


def files(run: Path) -> dict[str, bytes]:
    """Artefacts without times: the manifests' seconds and the milliseconds of a step are the machine's."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "recommendation.json", "recommendation.html")
    }


def test_one_command_from_a_log_to_a_recommender(config, tmp_path):
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path / "shop" / "recommendation.json")
    arms = {row["arm"] for row in found["lists"]}
    assert {"all components", *(f"without {name}" for name in RETRIEVERS), "without the ranker"} <= arms
    assert {row["arm"] for row in found["retrieval"]} == {*RETRIEVERS, "merged", "ranked"}
    assert not found["new_items_only"], "a shop whose users come back for the same things keeps them"
    assert "Retrieval, with" in done.stdout and "milliseconds per request" in done.stdout
    before = files(tmp_path / "shop")
    again = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, "--resume")
    assert again.returncode == 0 and again.stderr.count("unchanged, skipped") == 7, again.stderr
    assert files(tmp_path / "shop") == before

    other = taiji("recommend", config, "--name", "other", "--runs", tmp_path, "--quiet")
    assert other.returncode == 0
    assert files(tmp_path / "other") == before, "the same configuration gave other bytes"
    without = read_json(tmp_path / "other" / "recommendation.json")
    del found["milliseconds"], without["milliseconds"]
    assert without == found


def test_what_is_wrong_is_said_before_anything_runs(config, tmp_path):
    wrong = ["--set", "recommend.retrievers={'A b': {'model': 'popularity'}}"]
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, *wrong)
    assert (
        done.returncode == 2
        and "not a valid name of a retriever" in done.stderr
        and not (tmp_path / "shop" / "data").exists()
    )
    wrong = ["--set", "recommend.retrievers={'sasrec': {'half_live': 3}}"]
    done = taiji("recommend", config, "--name", "shop", "--runs", tmp_path, *wrong)
    assert done.returncode == 2 and "half_live" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "shop" / "data").exists()


@pytest.fixture(scope="module")
def world_config(tmp_path_factory) -> Path:
    """A world's log and a fitted fusion, so that the recipe has every stage that it can have."""
    folder = tmp_path_factory.mktemp("world")
    values = {
        "data": {"source": "world:short-video,users=40,items=60,days=6"},
        "ranking": {"epochs": 1, "min_steps": 5, "dimension": 4, "hidden": [8]},
        "recommend": {
            "retrievers": RETRIEVERS,
            "fusion": "monotone_ensemble",
            "fusion_settings": {"epochs": 1},
            "depths": [5],
            "length": 5,
            "closed_loop_users": 20,
        },
        "evaluation": {"resamples": 50},
    }
    (folder / "world.yaml").write_text(yaml.safe_dump(values))
    return folder / "world.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "share"), [("config", 0.0), ("world_config", 0.5)], ids=["a shop, at once", "a world, in its midst"]
)
def test_killed_in_every_stage_it_ends_in_the_same_bytes(source, share, request, tmp_path):
    config = request.getfixturevalue(source)
    whole = tmp_path / "whole"
    assert taiji("recommend", config, "--name", "whole", "--runs", tmp_path).returncode == 0
    settings = Config.model_validate(read_json(whole / "config.json"))
    stages = [stage.key for stage in recommend_stages(settings)]
    assert {"fusion", "closed_loop"} & set(stages) == ({"fusion", "closed_loop"} if source == "world_config" else set())
    for stage in stages:
        process = subprocess.Popen(
            command("recommend", config, "--name", "killed", "--runs", tmp_path, "--resume"),
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stderr is not None
        for line in process.stderr:
            if f"] {stage}:" in line and "done" not in line:
                time.sleep(share * read_manifest(whole / stage)["seconds"])
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        assert share or process.returncode == -signal.SIGKILL, f"{stage} was over before it could be killed"
    done = taiji("recommend", config, "--name", "killed", "--runs", tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "killed") == files(whole)
    found, other = (read_json(tmp_path / name / "recommendation.json") for name in ("killed", "whole"))
    del found["milliseconds"], other["milliseconds"]
    assert found == other


def test_a_planted_future_changes_no_fitted_component_and_no_list(tmp_path):
    """From the test period on everybody does something else at the same times, so that the periods are the same."""
    shop = write_shop(tmp_path / "before", users=20, items=40, events=1500)
    values = {
        "data": {"source": str(shop)},
        "ranking": {"epochs": 1, "min_steps": 5, "dimension": 4, "hidden": [8]},
        "recommend": {
            "retrievers": RETRIEVERS,
            "fusion": "monotone_ensemble",
            "fusion_settings": {"epochs": 1},
        },
    }
    config = Config.model_validate(values)
    fitting = [stage.key for stage in recommend_stages(config)][:-2]
    first = fitted(tmp_path / "first", config, fitting)
    start = time_split(first, config.split).interval("test")[0]

    log = pl.read_csv(shop / "log.csv")
    later = pl.col("at") >= start // 1_000_000
    random, size = np.random.default_rng(1), len(log)
    changed = log.with_columns(
        who=pl.when(later).then(pl.Series([f"u{n}" for n in random.integers(0, 20, size)])).otherwise("who"),
        what=pl.when(later).then(pl.lit("S7")).otherwise("what"),
        again=pl.when(later).then("bought").otherwise("again"),
    )
    assert not changed.equals(log)
    planted = write_shop(tmp_path / "after", users=20, items=40, events=1500)
    changed.write_csv(planted / "log.csv")
    second = fitted(tmp_path / "second", Config.model_validate({**values, "data": {"source": str(planted)}}), fitting)
    assert time_split(second, config.split).interval("test")[0] == start

    assert fitting[1:] == [*(f"retriever-{name}" for name in RETRIEVERS), "candidate_ranker", "fusion"]
    for stage in fitting[1:]:
        assert files(tmp_path / "first" / stage) == files(tmp_path / "second" / stage) != {}, stage
    slates = [
        composed(tmp_path / name, config, dataset).recommend(Requests(np.arange(20), np.full(20, start)), 10).slate
        for name, dataset in (("first", first), ("second", second))
    ]
    np.testing.assert_array_equal(slates[0].items, slates[1].items)
    np.testing.assert_array_equal(slates[0].scores, slates[1].scores)


def fitted(run: Path, config: Config, stages: list[str]) -> Dataset:
    """The dataset of a run that has these stages."""
    Run(run, config, recommend_stages(config), say=lambda text: None).execute(stages)
    return Dataset.load(run / "data" / "dataset")


def composed(run: Path, config: Config, dataset: Dataset):
    """The cascade of a run's components."""
    retrievers = {n: CatalogueRetriever.load(run / f"retriever-{n}" / "retriever", dataset) for n in RETRIEVERS}
    return make_cascade(
        config.recommend,
        dataset,
        retrievers,
        load_ranker(run / "candidate_ranker" / "ranker", dataset),
        fuser=load_fuser(Context(config, run, run, run, ("fusion",)), dataset),
    )
