"""The stage climbs the run's log and those beside it, and a seed less leaves it out."""

from tests.tiny import write_shop

from taiji.config import Config
from taiji.core.artifacts import read_json
from taiji.pipeline.engine import Run
from taiji.pipeline.stages.data_stage import Data
from taiji.pipeline.stages.ladder_stage import Ladder
from taiji.reporting.summary import LogLadder


def climb(folder, **ladder):
    ranking = {"hidden": [4], "min_steps": 1}
    config = Config(
        data={"source": str(write_shop(folder / "shop"))}, ladder=ladder, ranking=ranking, evaluation={"resamples": 20}
    )
    Run(folder / "run", config, (Data(), Ladder()), lambda text: None).execute()
    return read_json(folder / "run" / "ladder" / "ladder.json")


def test_every_log_has_its_ladder(tmp_path):
    found = climb(tmp_path, rows=300, logs=["world:shop,users=30,days=12"])
    assert len(found) == 2 and found[1]["log"] == "shop"
    for entry in found:
        log = LogLadder.model_validate(entry)
        assert log.left_out or [row.rung[0] for row in log.ladder if row.group == "all"] == ["0", "1", "2", "2", "4"]


def test_no_seed_no_ladder(tmp_path):
    assert climb(tmp_path, seeds=0) == []
