"""A field of the ranker is ablated: trained without it on the same rows, with a row of its own in the ablation."""

import pytest
from tests.tiny import write_shop

from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.models.ranking.train import load_ranker
from taiji.pipeline.engine import Run
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.pipeline.stages.ranker_without_stage import RankerWithout

PRICE = {"field": "number", "column": "price", "side": "item", "name": "item price"}


def config(shop, **recommend) -> Config:
    recommend = {"retrievers": {"popular": {"model": "popularity"}}, "depths": [5], "length": 5} | recommend
    values = {
        "data": {"source": str(shop)},
        "ranking": {"epochs": 1, "min_steps": 20, "dimension": 4, "hidden": [8], "fields": [PRICE], "pair_fields": []},
        "recommend": recommend,
        "evaluation": {"resamples": 50},
    }
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("without") / "shop", users=25, items=40, events=1500)


def test_the_ablation_has_a_row_for_the_field(shop, tmp_path):
    settings = config(shop, without_fields=["item price"])
    stages = recommend_stages(settings)
    Run(tmp_path, settings, stages, say=lambda text: None).execute([stage.key for stage in stages])
    dataset = Dataset.load(tmp_path / "data" / "dataset")
    whole, without = (
        load_ranker(tmp_path / key / "ranker", dataset) for key in ("candidate_ranker", RankerWithout("item price").key)
    )
    names = [{field.name for field in ranker.fieldset.fields} for ranker in (whole, without)]
    assert names[0] - names[1] == {"item price"} and names[1] < names[0]
    found = read_json(tmp_path / "recommendation.json")
    rows = [row for row in found["lists"] if row["arm"] == "ranker without item price"]
    assert {row["metric"].partition("@")[0] for row in rows} >= {"ndcg", "recall"}
    gaps = [row["difference"] for row in rows if row["metric"].startswith("ndcg")]
    assert gaps and all(gap["against"] == "all components" for gap in gaps)
    assert "ranker without item price" in (tmp_path / "recommendation.html").read_text()


def test_without_such_fields_nothing_is_added(shop):
    keys = [stage.key for stage in recommend_stages(config(shop))]
    assert not any("without" in key for key in keys)


def test_an_unknown_field_is_refused_before_anything_runs(shop):
    with pytest.raises(ConfigError, match="item price") as error:
        recommend_stages(config(shop, without_fields=["price"]))
    assert "recommend.without_fields" in str(error.value)


def test_it_needs_a_ranker(shop):
    with pytest.raises(ValueError, match="rank: true"):
        config(shop, without_fields=["item price"], rank=False)


def test_fields_with_similar_names_have_their_own_stages():
    names = ["price", "item price", "item_price", "item  price", "价格", "标价"]
    assert len({RankerWithout(name).key for name in names}) == len(names)
    assert RankerWithout("price").key == "ranker_without-price"
