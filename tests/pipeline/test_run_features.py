"""A recommender's run that reads another run's features: what it trains on, what it evaluates with, and what ends in an
error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError
from tests.tiny import random_rows, write_features_run, write_shop

from taiji.cascade.settings import RecommendSettings
from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.core.errors import ConfigError
from taiji.data import load_source, time_split
from taiji.data.dataset import Dataset
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.train import load_ranker
from taiji.pipeline.engine import Run
from taiji.pipeline.recommend_recipe import recommend_stages

LAST = 2**61
"""Behind every event."""


@dataclass
class Shop:
    """A log, the start of its test period, times of feature rows, and a place for runs."""

    folder: Path
    dataset: Dataset
    test: int
    times: list[int]

    def run(self, name: str, features: Path | None, stages: list[str] | None = None, **more: Any) -> Path:
        config = Config.model_validate(
            {
                "data": {"source": str(self.folder / "shop")},
                "ranking": {"epochs": 1, "min_steps": 5, "dimension": 4, "hidden": [4]},
                "recommend": {
                    "retrievers": {"popular": {"model": "popularity"}},
                    "features": None if features is None else str(features),
                    "depths": [5],
                    "length": 5,
                    "requests": 8,
                    "traced": 3,
                    "budget": {"retrieved": 10, "candidates": 10, "reranked": 10},
                    **more,
                },
                "evaluation": {"resamples": 10},
            }
        )
        said: list[str] = []
        made = Run(self.folder / name, config, recommend_stages(config), say=said.append)
        made.execute(stages)
        (self.folder / f"{name}.log").write_text("\n".join(said))
        return self.folder / name

    def ranker(self, run: Path) -> Ranker:
        found = load_ranker(run / "candidate_ranker" / "ranker", self.dataset)
        assert isinstance(found, Ranker)
        return found


FITTING = ["data", "candidate_ranker"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("features")
    dataset = Dataset.from_tables(load_source(write_shop(folder / "shop", users=20, items=30, events=900)))
    first, _, _, test, end = time_split(dataset, Config.model_validate({"data": {"source": "x"}}).split).bounds
    return Shop(folder, dataset, test, [(first + test) // 2, (test + end) // 2])


@pytest.fixture(scope="module")
def featured(shop: Shop) -> Path:
    """The whole recipe with features of half of the users, at a time before the test period and at one within it."""
    rows = random_rows(shop.dataset, shop.times).filter(pl.col("user_id").str.slice(1).cast(pl.Int64) < 10)
    return shop.run("featured", write_features_run(shop.folder / "other", shop.dataset, rows, shop.test))


def test_the_ranker_is_trained_on_the_features(shop: Shop, featured: Path) -> None:
    plain = shop.run("plain", None, FITTING)
    assert not (plain / "candidate_ranker" / "features.json").exists()
    fields, without = shop.ranker(featured).inputs.fields, shop.ranker(plain).inputs.fields
    assert {"ids"} == {field.name for field in fields.codes} and not without.codes
    names = {field.name for field in fields.sequences}
    assert names - {field.name for field in without.sequences} == {"neighbour_items"}
    about: dict[str, Any] = read_json(featured / "candidate_ranker" / "features.json")
    assert (about["run"], about["quantizer_version"], about["users"]) == ("other", "q-one", 10)
    exposed = shop.dataset.events.filter(pl.col("exposed") & (pl.col("time") < shop.test))
    had = exposed.filter((pl.col("time") > shop.times[0]) & (_number(shop.dataset) < 10))
    assert about["training"]["coverage"] == pytest.approx(len(had) / len(exposed), abs=0.05), (
        "labels may not be known yet"
    )
    assert 0 < about["training"]["coverage"] < 0.5


def test_requests_are_answered_with_the_row_of_their_time(shop: Shop, featured: Path) -> None:
    found = read_json(featured / "recommendation.json")
    requests = pl.read_parquet(featured / "recommendation" / "requests.parquet")
    assert "ids" not in requests.columns and found["requests"] == 8
    assert 0 < found["features"]["evaluation"]["coverage"] < 1
    page = (featured / "recommendation.html").read_text()
    assert "requests whose user had features of other" in page


def test_rows_of_the_future_change_no_byte_of_the_ranker(shop: Shop, featured: Path) -> None:
    rows = pl.read_parquet(shop.folder / "other" / "features" / "taiji.parquet").height
    past = random_rows(shop.dataset, shop.times).filter(pl.col("user_id").str.slice(1).cast(pl.Int64) < 10)
    planted = pl.concat([random_rows(shop.dataset, [shop.test, LAST], seed=3), past])
    assert planted.height > rows
    other = write_features_run(shop.folder / "planted", shop.dataset, planted, shop.test)
    run = shop.run("of planted", other, FITTING)
    weights = [path.relative_to(run) for path in (run / "candidate_ranker" / "ranker").rglob("*") if path.is_file()]
    assert weights and all((run / path).read_bytes() == (featured / path).read_bytes() for path in weights)


def test_other_features_make_the_ranker_again_and_the_same_do_not(shop: Shop, featured: Path) -> None:
    rows = random_rows(shop.dataset, shop.times)
    other = write_features_run(shop.folder / "changing", shop.dataset, rows, shop.test)
    run = shop.run("changed", other, FITTING)
    shop.run("changed", other, FITTING)
    assert "candidate_ranker: unchanged" in _log(shop, run)
    write_features_run(other, shop.dataset, random_rows(shop.dataset, shop.times, seed=9), shop.test)
    shop.run("changed", other, FITTING)
    assert "candidate_ranker: running again" in _log(shop, run)


def test_features_that_nobody_had_in_time_are_an_error(shop: Shop) -> None:
    late = write_features_run(shop.folder / "late", shop.dataset, random_rows(shop.dataset, [LAST]), shop.test)
    with pytest.raises(ConfigError, match="No training exposure has earlier features of its user"):
        shop.run("of late", late, FITTING)
    with pytest.raises(ConfigError, match="no features"):
        shop.run("of nothing", shop.folder / "nothing", FITTING)
    assert not (shop.folder / "of nothing").exists(), "said before anything ran"


def test_features_need_the_ranker() -> None:
    with pytest.raises(ValidationError, match="rank: true"):
        RecommendSettings(features="runs/mine", rank=False)


def _number(dataset: Dataset) -> pl.Expr:
    """The number in each event's user id."""
    numbers = dataset.users["user_id"].cast(pl.String).str.slice(1).cast(pl.Int64)
    return pl.col("user").replace_strict(dataset.users["user"], numbers, return_dtype=pl.Int64)


def _log(shop: Shop, run: Path) -> str:
    return (shop.folder / f"{run.name}.log").read_text()


def test_a_fusion_is_fitted_to_a_ranker_with_the_features(
    shop: Shop, featured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taiji.models.ranking import train

    seen: list[pl.DataFrame] = []
    real = train.train_ranker

    def noted(dataset: Dataset, rows: pl.DataFrame, *more: Any) -> Any:
        seen.append(rows)
        return real(dataset, rows, *more)

    monkeypatch.setattr(train, "train_ranker", noted)
    fitted = {"fusion": "monotone_ensemble", "fusion_settings": {"epochs": 1, "users": 4}}
    run = shop.run("fitted", shop.folder / "other", ["data", "fusion"], **fitted)
    (rows,) = seen
    assert "ids" in rows.columns and rows["ids"].null_count() < len(rows)
    write_features_run(shop.folder / "another", shop.dataset, random_rows(shop.dataset, shop.times, seed=4), shop.test)
    shop.run("fitted", shop.folder / "another", ["data", "fusion"], **fitted)
    assert "fusion: running again" in _log(shop, run)
