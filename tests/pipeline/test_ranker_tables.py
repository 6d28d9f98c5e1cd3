"""A ranker is made again when a file that it reads has changed."""

import os

import pytest

from taiji.config import load_config
from taiji.pipeline.ranker_tables import ranker_tables


@pytest.mark.parametrize("key", ["embedder", "table"])
def test_files_of_fields_are_part_of_the_state(tmp_path, key):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    config = load_config(overrides=[f"ranking.pair_fields=[collaborative, {{field: text_match, {key}: '{tmp_path}'}}]"])
    before = ranker_tables(config)
    assert before == ranker_tables(config) != []
    file.write_bytes(b"another")
    os.utime(file, ns=(1, 1))
    assert ranker_tables(config) != before


def test_the_embedder_of_a_model_is_part_of_the_state(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    config = load_config(
        overrides=["ranking.model=comment_dwell", "ranking.comments=c.parquet", f"ranking.embedder={tmp_path}"]
    )
    assert [name for name, *_ in ranker_tables(config)] == ["model.safetensors"]


def test_a_name_is_no_file():
    assert ranker_tables(load_config(overrides=["ranking.pair_fields=[{field: text_match, embedder: minilm}]"])) == []
