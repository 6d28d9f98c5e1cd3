"""The room's benchmark in its quick form, so that it does not rot."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import ranking, text_features, uplift
from benchmarks.abtest import over_seeds
from tests.quick import run_quick
from tests.reasoning.conftest import build

from taiji.models.ranking.settings import RankerSettings
from taiji.reasoning.item_knowledge import Said


@pytest.mark.slow
def test_quick_run_holds_its_checks(tmp_path):
    # One seed of the null twin may differ from zero by chance; over seeds it is the full benchmark's business.
    written = run_quick(
        "abtest", tmp_path, must_hold=lambda check: not check.startswith("null twin: distance"), public_data=True
    )
    assert len(written["checks"]) >= 10


def test_the_mean_over_seeds_has_students_interval():
    low, high = over_seeds([(v, 0.0, 0.0) for v in (1.0, 2.0, 3.0, 4.0, 5.0)])
    assert (low, high) == pytest.approx((3 - 2.776 * np.sqrt(2.5 / 5), 3 + 2.776 * np.sqrt(2.5 / 5)))
    assert over_seeds([(1.0, 0.5, 1.5)]) == (0.5, 1.5)


@pytest.mark.slow
def test_quick_study_goes_on_and_its_controls_do_not_gain(tmp_path):
    written = run_quick("study", tmp_path)
    assert len(written["checks"]) == 4


@pytest.mark.slow
def test_quick_text_features_judges_every_way_of_using_them(tmp_path):
    written = run_quick("text_features", tmp_path)
    parts = {(row["part"], row["features"]) for row in written["rows"]}
    assert len([p for p in parts if p[0] == "ladder"]) == 10 and len([p for p in parts if p[0] == "ways"]) == 11


def test_files_of_a_language_model_are_of_one_log(capsys):
    logs, _, language, rest = uplift.arguments(["--data", "world:shop", "--intents", "rows.parquet", "--quick"])
    assert logs == ["world:shop"] and rest == ["--quick"]
    assert language == uplift.Language(intents="rows.parquet")
    with pytest.raises(SystemExit):
        uplift.arguments(["--knowledge", "knowledge.parquet"])
    assert "single --data" in capsys.readouterr().err


def test_a_table_of_knowledge_is_written_once_by_the_model(tmp_path, monkeypatch):
    """A part that was there before a kill is not written again."""
    shop, asked = build(items=200), []

    class Writer:
        version = "w"

        def __init__(self, lm, settings):
            pass

        def write(self, prompts, seed):
            asked.extend(prompts)
            if len(asked) > 150 and not (tmp_path / "go").exists():
                raise KeyboardInterrupt
            return [Said(f"For {prompt.messages[-1]['content'].split()[3]}.", "whole", 9, 4) for prompt in prompts]

    monkeypatch.setattr(uplift, "LocalItemWriter", Writer)
    monkeypatch.setattr(uplift, "load_configured", lambda settings: None)
    file = str(tmp_path / "k.parquet")
    with pytest.raises(KeyboardInterrupt):
        uplift.knowledge_of(shop, file, "m")
    (tmp_path / "go").touch()
    del asked[:]
    table = uplift.knowledge_of(shop, file, "m")
    assert len(asked) == 104 and table["item_id"].to_list() == [str(item) for item in range(200)]
    assert uplift.knowledge_of(shop, file, "m").equals(table) and len(asked) == 104


def test_settings_that_only_full_runs_use_are_settings_of_the_ranker():
    for settings in (*text_features.RANKERS.values(), *ranking.GRIDS["taiji"]):
        assert RankerSettings(**settings).model_fields_set == settings.keys()
