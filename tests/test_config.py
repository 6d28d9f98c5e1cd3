"""The one configuration: presets fit, overrides merge, and mistakes are explained."""

from __future__ import annotations

import pytest
import yaml

from taiji.config import PRESETS, Config, load_config
from taiji.errors import TaijiError


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
    (tmp_path / "c.json").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(tmp_path / "c.json") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["size.test_promts=3"], "did you mean 'test_prompts'"),
        (["nothing.here=3"], "unknown key 'nothing'"),
        (["size.test_prompts=0"], "greater than or equal to 2"),
        (["size.test_prompts=many"], "found 'many'"),
        (["alone"], "key=value"),
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


def test_unknown_preset_and_missing_file(tmp_path):
    with pytest.raises(TaijiError, match="demo, laptop, paper"):
        load_config(preset="huge")
    with pytest.raises(TaijiError, match="No such file"):
        load_config(tmp_path / "none.yaml")
