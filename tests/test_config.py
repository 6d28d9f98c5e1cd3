"""The one configuration: presets fit, overrides merge, and mistakes are explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taiji.config import PRESETS, RENAMED_KEYS, Config, load_config, setting_keys
from taiji.core.composition import section_of
from taiji.core.errors import ConfigError, TaijiError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_the_settings(preset):
    assert load_config(preset=preset) != Config()


def test_later_sources_win_and_the_rest_keeps_its_defaults(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("preset: demo\nsize: {test_prompts: 33}\ngeneration: {max_new_tokens: 5}\n")
    config = load_config(path, overrides=["size.chunk=7", "data.users=null", "size.test_prompts=34"])
    assert (config.size.test_prompts, config.size.chunk, config.generation.max_new_tokens) == (34, 7, 5)
    assert config.generation.top_p == Config().generation.top_p
    assert config.size.rationale_prompts == load_config(preset="demo").size.rationale_prompts


def test_a_stored_configuration_reads_back_as_itself(tmp_path):
    config = load_config(preset="laptop", overrides=["seed=3"])
    (tmp_path / "c.json").write_text(json.dumps(config.model_dump(mode="json")))
    assert load_config(tmp_path / "c.json") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["size.test_promts=3"], "did you mean 'test_prompts'"),
        (["nothing.here=3"], "unknown key 'nothing'"),
        (["size.test_prompts=0"], "greater than or equal to 2"),
        (["size.test_prompts=many"], "found 'many'"),
        (["alone"], "key=value"),
        (["split.fractions=[0.5, 0.5]"], "split.fractions: expected four positive shares that sum to 1"),
        (["split.fractions=[0.1, 0.1, 0.1, 0.1]"], "expected four positive shares that sum to 1, found the sum 0.4"),
        (["split.fractions=0.5"], "split.fractions: expected four positive shares"),
        (["size={chunk: 1, chunk: 2}"], "'chunk'"),
        (["alignment.grounding_threshold=1"], "did you mean 'evaluation.grounding_threshold'"),
    ],
)
def test_mistakes_in_overrides_are_explained(overrides, message):
    with pytest.raises(TaijiError, match=message):
        load_config(overrides=overrides)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_files_that_are_no_configuration_are_explained(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(TaijiError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")


def test_the_sample_of_a_preset_is_one_of_its_own_log(tmp_path):
    """Somebody's own log must not be cut to the users of the demo's."""
    assert load_config(preset="demo").data.users == load_config(preset="demo", overrides=["seed=3"]).data.users == 1500
    assert load_config(preset="demo", overrides=["data.source=completejourney"]).data.users == 1500
    assert load_config(preset="demo", overrides=["data.source=world:shop"]).data.users is None
    own = tmp_path / "own.yaml"
    own.write_text("preset: demo\ndata: {source: mapping.yaml, non_clicks: 7}\n")
    config = load_config(own)
    assert config.data.users is None and config.data.non_clicks == 7
    demo = load_config(preset="demo")
    assert config.size == demo.size and config.ladder.rows == demo.ladder.rows, "the other settings of the preset stay"
    assert demo.ladder.logs and not config.ladder.logs, "somebody's own report is not about the demo's worlds"
    assert load_config(own, overrides=["data.users=20"]).data.users == 20
    assert load_config(own, overrides=["data.source=completejourney"]).data.users == 1500


@pytest.mark.parametrize(
    ("text", "options", "where"),
    [
        ("preset: demo\nsize: {test_prompts: 0}\n", {}, "c.yaml"),
        ("size: {test_prompts: 50}\n", {"preset": "demo", "overrides": ["size.test_prompts=0"]}, "--set size.test_prompts=0"),
        ("size: {test_prompts: 0}\n", {"preset": "demo", "overrides": ["seed=1"]}, "c.yaml"),
        ("size: {test_prompts: 50, chnk: 3}\n", {"preset": "demo", "overrides": ["seed=many"]}, "--set seed=many, c.yaml"),
        ("split: {fractions: [0.5, 0.5]}\n", {}, "c.yaml"),
        ("preset: demo\nstages: []\n", {"data": "wrld", "overrides": ["data.users=0"]}, "--set data.users=0"),
        ("preset: dmo\n", {}, "c.yaml: preset: dmo"),
        ("preset: demo\n", {"preset": "dmo"}, "--preset dmo"),
        ("reasoning: {sft: 3}\n", {"preset": "demo"}, "c.yaml"),
    ],
    ids=["file", "override", "file under an override", "two", "whole section", "data", "preset in the file", "option", "no section"],
)  # fmt: skip
def test_an_error_names_the_place_of_the_wrong_value_and_nothing_else(tmp_path, monkeypatch, text, options, where):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("c.yaml", **options)
    assert caught.value.where == where
    if where == "c.yaml":
        assert "--" not in str(caught.value)


def test_data_is_a_text_and_not_read_as_yaml():
    assert load_config(data="007: x").data.source == "007: x"
    assert load_config(preset="demo", data="world:shop").data.users is None


def test_unknown_preset_and_missing_file(tmp_path):
    with pytest.raises(TaijiError, match="demo, laptop, paper"):
        load_config(preset="huge")
    with pytest.raises(TaijiError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_no_phrase_of_the_checking_library_reaches_a_user(tmp_path):
    (tmp_path / "c.yaml").write_text("split: {fractions: [1, 2]}\nsize: {chunk: many}\nembedder: {name: 3}\nsed: 1\n")
    with pytest.raises(TaijiError) as caught:
        load_config(tmp_path / "c.yaml")
    assert not any(
        word in str(caught.value) for word in ("Value error", "Input should", "Field required", "Extra inputs")
    )


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [("seed: 1\nsize: {chunk: 3}\nseed: 2\n", "seed", (1, 3)), ("size:\n  chunk: 1\n  chunk: 2\n", "chunk", (2, 3))],
)
def test_a_key_given_twice_is_named_with_its_lines(tmp_path, text, key, lines):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(TaijiError, match=rf"(?s)c\.yaml, line {lines[1]}, key '{key}'.*in line {lines[0]}"):
        load_config(tmp_path / "c.yaml")


def sections(model=Config, prefix=""):
    for name, field in model.model_fields.items():
        if section := section_of(field):
            yield f"{prefix}{name}", field.default, section
            yield from sections(section, f"{prefix}{name}.")


@pytest.mark.parametrize(("name", "default", "section"), list(sections()), ids=[name for name, *_ in sections()])
def test_a_section_that_is_given_in_part_keeps_its_defaults(name, default, section):
    """What a file leaves out comes from the section's class, so a section may have no other default."""
    assert default == section(), name


@pytest.mark.parametrize(
    ("old", "inner", "value"),
    [("alignment.environment", "random_candidates", 7), ("own_ranker.judge", "", "mine:score")],
    ids=["section", "value"],
)
def test_old_keys_are_read_and_say_their_new_name(tmp_path, caplog, old, inner, value):
    (section, key), new = old.split("."), RENAMED_KEYS[old]
    below = f".{inner}" if inner else ""
    wanted = load_config(overrides=[f"{new}{below}={value}"])
    assert wanted != Config() and not caplog.text
    (tmp_path / "c.json").write_text(json.dumps({section: {key: {inner: value} if inner else value}}))
    assert load_config(tmp_path / "c.json") == wanted
    assert f"c.json: {old} is now called {new}" in caplog.text
    assert load_config(overrides=[f"{old}{below}={value}"]) == wanted
    assert f"--set {old}{below}={value}: {old} is now called {new}" in caplog.text
    (tmp_path / "c.json").write_text(json.dumps({section: {key: None, new.split(".")[1]: None}}))
    with pytest.raises(ConfigError, match="old and its new key"):
        load_config(tmp_path / "c.json")


def test_old_keys_move_between_sections_and_out_of_a_renamed_one(caplog):
    config = load_config(
        overrides=[
            "alignment.environment.grounding_threshold=0.5",
            "alignment.environment.random_candidates=7",
            "alignment.warmup_steps=9",
        ]
    )
    assert (config.evaluation.grounding_threshold, config.alignment.weight_warmup) == (0.5, 9)
    assert config.alignment.reward_table.random_candidates == 7
    assert "alignment.warmup_steps is now called alignment.weight_warmup" in caplog.text


def test_mistakes_below_an_old_key_are_told_by_that_key():
    with pytest.raises(
        ConfigError, match=r"unknown key 'alignment\.environment\.randm_candidates'.*'random_candidates'"
    ):
        load_config(overrides=["alignment.environment.randm_candidates=3"])


def test_an_old_key_may_move_into_a_mapping():
    config = load_config(overrides=["ranking.conversion_weight=0.3", "ranking.task_weights.liked=2"])
    assert config.ranking.task_weights == {"conversion": 0.3, "liked": 2.0}


def test_no_old_key_is_a_key():
    keys = setting_keys()
    for old, new in RENAMED_KEYS.items():
        assert not any(key == old or key.startswith(f"{old}.") for key in keys)
        assert any(key == new or key.startswith(f"{new}.") or new.startswith(f"{key}.") for key in keys)


def run_with(folder, change):
    """A run directory as another version may have left it."""
    values = Config().model_dump(mode="json")
    change(values)
    (folder / "data").mkdir()
    (folder / "data" / "manifest.json").write_text('{"version": "0.0.7"}')
    (folder / "config.json").write_text(json.dumps(values))
    return folder / "config.json"


def test_a_run_of_another_version_says_so_and_names_the_keys(tmp_path):
    path = run_with(tmp_path, lambda values: values["alignment"].update(grounding_threshold=0.5, warmup=3))
    with pytest.raises(TaijiError, match="different version") as caught:
        load_config(path)
    said = str(caught.value)
    assert all(
        word in said for word in ("taiji 0.0.7", "'alignment.warmup'", "alignment.grounding_threshold", str(path))
    )
    assert "'evaluation.grounding_threshold'" in said and "start a new run" in said
    (tmp_path / "my.json").write_text(path.read_text())
    with pytest.raises(TaijiError, match="configuration is invalid"):
        load_config(tmp_path / "my.json")


def test_a_mistyped_override_is_not_laid_to_the_run(tmp_path):
    path = run_with(tmp_path, lambda values: None)
    with pytest.raises(TaijiError, match=r"is invalid(?s:.)*--set size.chnk=3"):
        load_config(path, overrides=["size.chnk=3"])


@pytest.mark.parametrize("text", ['{"seed": 1, "si', ""])
def test_a_damaged_configuration_of_a_run_is_no_bad_yaml(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TaijiError, match="stored configuration of a run is damaged") as caught:
        load_config(tmp_path / "config.json")
    assert "JSON" in str(caught.value) and "YAML" not in str(caught.value) and "--resume" in str(caught.value)
