"""A recipe with a fitted fusion: named in the configuration, fitted by its stage, evaluated, and served."""

import pytest
from tests.tiny import write_shop

from taiji.config import Config
from taiji.core.artifacts import read_json, write_json
from taiji.core.errors import ConfigError
from taiji.models.fusion.monotone_ensemble import MonotoneEnsemble
from taiji.models.fusion.weighted import BesideMerge
from taiji.pipeline.engine import Run
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.serving.live_dataset import World
from taiji.serving.recommender import LiveFuser, recommender_of
from taiji.serving.recommender_files import recommender_version


@pytest.mark.integration
def test_a_named_fusion_is_fitted_evaluated_and_served(tmp_path):
    values = {
        "data": {"source": str(write_shop(tmp_path / "shop", users=20, items=40, events=900))},
        "ranking": {"epochs": 1, "min_steps": 2, "dimension": 2, "hidden": [4]},
        "recommend": {
            "retrievers": {"popular": {"model": "popularity"}},
            "fusion": "monotone_ensemble",
            "fusion_settings": {"epochs": 1, "users": 4},
            "length": 4,
            "depths": [4],
        },
        "evaluation": {"resamples": 10},
    }
    config = Config.model_validate(values)
    stages = recommend_stages(config)
    assert [stage.name for stage in stages][-3:] == ["fusion", "recommendation", "recommend_report"]
    Run(tmp_path / "run", config, stages, say=lambda text: None).execute()
    found = read_json(tmp_path / "run" / "recommendation.json")
    assert "averaged ranks in place of the fusion" in {row["arm"] for row in found["lists"]}
    assert read_json(tmp_path / "run" / "fusion" / "fuser" / "config.json")["settings"]["weights"] == {"click": 1.0}
    world = World(tmp_path / "run")
    fuser = recommender_of(world, None).cascade.ranking.fuser
    assert isinstance(fuser, BesideMerge) and isinstance(fuser.fuser, LiveFuser)
    assert isinstance(fuser.fuser.model, MonotoneEnsemble)
    versions, stored = {}, read_json(tmp_path / "run" / "config.json")
    for rerank in ("none", "mmr"):
        for embedder in ("wordllama", "minilm"):
            stored["recommend"]["rerank"], stored["embedder"]["name"] = rerank, embedder
            write_json(tmp_path / "run" / "config.json", stored)
            versions[rerank, embedder] = recommender_version(tmp_path / "run")
    assert versions["none", "wordllama"] == versions["none", "minilm"], "no list depends on an embedder"
    assert len(set(versions.values())) == 3
    values["recommend"]["fusion_settings"] = {"epoch": 1}
    with pytest.raises(ConfigError, match="epoch"):
        recommend_stages(Config.model_validate(values))
