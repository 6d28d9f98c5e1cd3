"""Recipes with stages of other packages: their place, their settings, their fingerprints and their costs."""

from __future__ import annotations

import pickle
import sys

import pytest
from tests.pipeline.foreign import RANKER, STAGE, write_module
from tests.scale.test_plan import CONFIG, LOG, RUN

from taiji.cli.settings_page import reference
from taiji.config import Config, load_config
from taiji.core.errors import ArtifactError, ConfigError
from taiji.pipeline.amounts import Amount
from taiji.pipeline.engine import Run
from taiji.pipeline.recipes import ENHANCE, extended, stages_of
from taiji.pipeline.stage import Stage
from taiji.pipeline.stages.alignment_stage import Alignment
from taiji.pipeline.stages.features_stage import Features
from taiji.scale.plan import plan
from taiji.scale.workload import workload


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The other package's module, importable."""
    monkeypatch.syspath_prepend(write_module(tmp_path / "parts"))
    sys.modules.pop("shop_parts", None)  # another test of this process may have imported one of that name
    yield
    sys.modules.pop("shop_parts", None)


def made(name, needs=()):
    return type(name, (Stage,), {"name": name, "summary": "", "needs": needs, "run": lambda self, context: {}})()


def test_every_stage_of_the_recipe_stands_behind_its_needs():
    names = [stage.key for stage in ENHANCE]
    assert len(set(names)) == len(names) == 15
    assert all(names.index(need) < place for place, stage in enumerate(ENHANCE) for need in stage.needs)


def test_added_stages_stand_right_behind_what_they_need_whatever_the_order():
    more = [made("third", ("second", "data")), made("second", ("reward",)), made("first")]
    names = [stage.key for stage in extended(ENHANCE, more)]
    assert names[:7] == ["first", "data", "examples", "ladder", "reward", "second", "third"]
    assert [name for name in names if name not in ("first", "second", "third")] == [stage.key for stage in ENHANCE]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([made("a", ("nothing",))], "a needs nothing"),
        ([made("a", ("b",)), made("b", ("a",))], "a needs b; b needs a"),
        ([made("features")], "the same name"),
        ([made("a"), made("a")], "the same name"),
    ],
    ids=["missing", "circle", "ours", "twice"],
)
def test_stages_that_do_not_fit_are_explained(stages, message):
    with pytest.raises(ConfigError, match=message):
        extended(ENHANCE, stages)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Stage", "could not be imported"),
        ("no_entry_point", "No component has this name"),
        ("shop_parts:Popular", "does not name a stage"),
        ("shop_parts:PriceBandSettings", "does not name a stage"),
    ],
)
def test_references_that_name_no_stage_are_explained(module, reference, message):
    with pytest.raises(ConfigError, match=message):
        stages_of(load_config(overrides=[f"stages=['{reference}']"]))


@pytest.mark.parametrize("name", ["../evil", "config.json", ".work", "_x", "model_dump", "preset", "Data", "a-b", ""])
def test_a_stage_cannot_have_a_name_that_means_something_else(name, tmp_path, monkeypatch):
    (tmp_path / "odd_stage.py").write_text(
        f"from taiji.pipeline.stage import Stage\n\n\nclass Odd(Stage):\n    name = {name!r}\n    summary = 'Odd.'\n\n"
        "    def run(self, context):\n        return {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_stage", raising=False)
    with pytest.raises(ConfigError, match="cannot have this name"):
        load_config(overrides=["stages=['odd_stage:Odd']"])


@pytest.mark.parametrize("first", ["import", "attribute"])
def test_a_module_that_breaks_while_it_is_imported_is_explained(first, tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("raise RuntimeError('no luck')" if first == "import" else "x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_part", raising=False)
    with pytest.raises(ConfigError, match="could not be imported"):
        load_config(overrides=["stages=['broken_part:Part']"])
    with pytest.raises(ConfigError, match="could not be imported"):
        load_config(overrides=["stages=['.broken_part:Part']"])


def test_another_class_under_the_same_name_runs_again(module, tmp_path):
    from taiji.pipeline.engine import made_by

    class Data:
        pass

    first = made_by(Data)
    assert first.startswith(f"{__name__}:") and len(first.split()[-1]) == 16, "a foreign class counts by its file"
    assert made_by(type(ENHANCE[0])) == "taiji.pipeline.stages.data_stage:Data"
    run = Run(tmp_path, load_config(overrides=[f"stages=['{STAGE}']"]), ENHANCE)
    assert run._depends_on(ENHANCE[0])["class"] == made_by(type(ENHANCE[0]))


def test_a_class_that_settings_name_counts_by_its_file(tmp_path, monkeypatch):
    from taiji.core.component import foreign_code

    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "my_field_part.py"
    module.write_text("window = 10")
    settings = {
        "ranking": {"model": "dcn", "fields": [{"field": "my_field_part:Field"}, "no.such:Thing", "taiji.data:x"]}
    }
    first = foreign_code(settings)
    assert list(first) == ["my_field_part:Field"] and foreign_code(settings) == first
    module.write_text("window = 20")
    assert foreign_code(settings) != first and foreign_code({"ranking": "dcn"}) == {}


def test_a_model_is_changed_before_its_settings_whatever_the_order():
    there, back = ["ranking.model=dcn", "ranking.cross_layers=2"], ["ranking.cross_layers=2", "ranking.model=dcn"]
    assert load_config(overrides=there) == load_config(overrides=back)
    assert load_config(overrides=back).ranking.cross_layers == 2


def test_settings_of_a_foreign_stage_are_a_section_like_ours(module, tmp_path):
    named = f"stages=['{STAGE}']"
    config = load_config(overrides=[named, "price_bands.bands=5"])
    assert config.model_dump()["price_bands"] == {"bands": 5, "column": "price"}
    assert load_config(overrides=[named]).model_dump()["price_bands"]["bands"] == 3
    with pytest.raises(ConfigError, match=r"price_bands\.bnds.*did you mean 'bands'"):
        load_config(overrides=[named, "price_bands.bnds=5"])
    with pytest.raises(ConfigError, match=r"price_bands\.bands.*greater than or equal to 1"):
        load_config(overrides=[named, "price_bands.bands=0"])
    with pytest.raises(ConfigError, match="unknown key 'price_bands'"):
        load_config(overrides=["price_bands.bands=5"])
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load_config(tmp_path / "config.json") == config == pickle.loads(pickle.dumps(config))
    page = reference(type(config))
    assert "## `price_bands`" in page and "Bands, of equally many items each. (≥ 1)" in page
    assert "price_bands" not in reference()


def test_fingerprints_cover_the_settings_of_a_foreign_stage(module, tmp_path):
    def hashes(*overrides):
        config = load_config(overrides=[f"stages=['{STAGE}']", *overrides])
        stages = [stage for stage in stages_of(config) if stage.name in ("data", "price_bands")]
        run = Run(tmp_path, config, stages)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "manifest.json").write_text('{"output": "0"}')
        return {stage.name: run.fingerprint(stage) for stage in stages}

    before, after = hashes(), hashes("price_bands.bands=4")
    assert before == hashes()
    assert before["data"] == after["data"] and before["price_bands"] != after["price_bands"]


def test_the_plan_has_a_line_for_a_foreign_stage(module):
    config = load_config(overrides=[f"stages=['{STAGE}']", "price_bands.bands=4"])
    assert workload(config, LOG)["price_bands"] == Amount(4 * LOG.items)
    found = plan(config, LOG.users, [RUN])
    assert next(cost for cost in found.stages if cost.stage == "price_bands").rows == 4 * LOG.items
    assert any("price_bands" in line and "not counted" in line for line in found.assumptions)
    assert not any("price_bands" in line for line in plan(CONFIG, LOG.users, [RUN]).assumptions)


def test_another_ranking_model_brings_its_own_settings(module):
    named = f"ranking.model={RANKER}"
    config = load_config(preset="laptop", overrides=[named, "ranking.smoothing=2"])
    assert config.model_dump()["ranking"] == {"model": RANKER, "smoothing": 2.0}, "nothing of the preset's model"
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ConfigError, match=r"unknown key 'ranking\.epochs' .*known: smoothing, model"):
        load_config(overrides=[named, "ranking.epochs=2"])
    with pytest.raises(ConfigError, match=r"ranking\.smoothing.*greater than 0"):
        load_config(overrides=[named, "ranking.smoothing=0"])
    shop = load_config(overrides=[f"abtest.ranker={{model: '{RANKER}', smoothing: 3}}"]).abtest
    assert shop.model_dump()["ranker"] == {"model": RANKER, "smoothing": 3.0}
    assert workload(config, LOG)["reward"].rows == LOG.exposures(0), "a model that does not tell its passes makes one"
    assert "Clicks and exposures that every item has beforehand." in reference(type(config))


def test_a_neural_model_of_ours_is_chosen_by_name_and_tells_its_passes():
    config = load_config(overrides=["ranking.model=dcn", "ranking.epochs=7"])
    assert config.ranking.model == "dcn" and "## `ranking`" in reference(type(config))
    assert set(config.model_dump()["ranking"]) != set(Config().model_dump()["ranking"])
    assert workload(config, LOG)["reward"].rows == LOG.exposures(0) * config.ranking.passes(LOG.exposures(0))
    with pytest.raises(ConfigError, match=r"unknown key 'ranking\.attention_heads'"):
        load_config(overrides=["ranking.model=dcn", "ranking.attention_heads=2"])


@pytest.mark.parametrize(
    ("model", "message"),
    [("shop_parts:np", "has no settings"), ("nowhere:Ranker", "could not be imported"), ("unheard", "No component")],
)
def test_ranking_models_that_there_are_not_are_explained(module, model, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"ranking.model={model}"])


def test_a_parametrised_stage_has_its_own_folder_and_sees_its_own_configuration(tmp_path):
    assert [Features().key, Features("sft").key, Alignment("fixed").key] == [
        "features",
        "features-sft",
        "alignment-fixed",
    ]
    assert Features("fixed").needs[-1] == "alignment-fixed" and Features("base").needs == ("data", "examples")
    config = Config()
    assert Alignment("fixed").configured(config).alignment.weighting == "fixed" != config.alignment.weighting
    base, study = tmp_path / "base", tmp_path / "study"
    for name in ("data", "examples", "sft"):
        (base / name).mkdir(parents=True)
        (base / name / "manifest.json").write_text(f'{{"output": "{name}"}}')
    run = Run(study, config, [Features("sft"), Features("base")], base=base)
    assert run.fingerprint(Features("sft")) != run.fingerprint(Features("base"))
    assert run.output_hash("sft") == "sft"
    (study / "sft").mkdir(parents=True)
    (study / "sft" / "manifest.json").write_text('{"output": "own"}')
    assert run.output_hash("sft") == "own", "a run's own stage comes before the one of the run it builds on"


def test_an_entry_point_names_a_stage_too(tmp_path, monkeypatch):
    folder = write_module(tmp_path / "parts")
    (folder / "shop_parts-1.0.dist-info").mkdir()
    (folder / "shop_parts-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop-parts\nVersion: 1.0\n"
    )
    (folder / "shop_parts-1.0.dist-info" / "entry_points.txt").write_text(f"[taiji.stages]\nbands = {STAGE}\n")
    monkeypatch.syspath_prepend(folder)
    config = load_config(overrides=["stages=[bands]", "price_bands.bands=2"])
    assert [stage.key for stage in stages_of(config)][:2] == ["data", "price_bands"]
    sys.modules.pop("shop_parts", None)


def test_a_study_of_a_run_without_a_stage_says_how_to_make_it(tmp_path):
    run = Run(
        tmp_path / "runs" / "mine" / "study" / "stages", Config(), [Features("sft")], base=tmp_path / "runs" / "mine"
    )
    with pytest.raises(ArtifactError, match=r"taiji data --name mine --runs .*runs$"):
        run.fingerprint(Features("sft"))
