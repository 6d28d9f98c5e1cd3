"""Texts are embedded once, and what is kept on disk is read again."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.language.test_embed import encoder_folder

from taiji.language import embed, item_vectors
from taiji.language.embed import load_embedder
from taiji.language.item_vectors import embedded, embedder_version


class Slow:
    """An encoder that counts its calls."""

    name = version = "slow"
    dimension = 3

    def __init__(self):
        self.calls = 0

    def encode(self, texts):
        self.calls += 1
        return np.array([[len(text), 1, 0] for text in texts], dtype=np.float32)


@pytest.fixture
def slow(monkeypatch, tmp_path):
    made = Slow()
    monkeypatch.setenv("TAIJI_CACHE", str(tmp_path))
    monkeypatch.setattr(item_vectors, "_loaded", lambda name, state: made)
    item_vectors._embedded.cache_clear()
    yield made
    item_vectors._embedded.cache_clear()


def test_a_catalogue_is_embedded_once(slow, tmp_path):
    texts = [f"text {'x' * place}" for place in range(item_vectors.MANY)]
    first = item_vectors.embedded("slow", texts)
    item_vectors._embedded.cache_clear()
    assert item_vectors.embedded("slow", texts).tobytes() == first.tobytes() and slow.calls == 1
    (file,) = (tmp_path / "item-vectors").iterdir()
    file.write_bytes(b"torn")
    item_vectors._embedded.cache_clear()
    assert item_vectors.embedded("slow", texts).tobytes() == first.tobytes() and slow.calls == 2


def test_other_texts_are_embedded_apart(slow):
    assert item_vectors.embedded("slow", ["a"]).tobytes() != item_vectors.embedded("slow", ["ab"]).tobytes()
    assert slow.calls == 2


def test_a_folder_that_is_trained_anew_gives_new_vectors(tmp_path):
    folder, texts = encoder_folder(tmp_path, None), ["milk", "tea"]
    before, version = embedded(str(folder), texts), embedder_version(str(folder))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: np.ascontiguousarray(value[::-1]) for name, value in weights.items()}, folder / "model.safetensors"
    )
    assert embedder_version(str(folder)) == load_embedder(str(folder)).version != version
    np.testing.assert_allclose(embedded(str(folder), texts), load_embedder(str(folder)).encode(texts))
    assert not np.allclose(embedded(str(folder), texts), before)


def test_the_better_embedder_where_it_is_installed(monkeypatch):
    assert item_vectors.chosen_embedder("anything") == "anything"
    for there, expected in (
        ({"transformers", item_vectors.MINILM, "wordllama", "tokenizers"}, "minilm"),
        ({"transformers", "wordllama", "tokenizers"}, "wordllama"),
        ({"transformers"}, None),
    ):
        for module in (item_vectors, embed):
            monkeypatch.setattr(module, "find_spec", lambda name, there=there: name if name in there else None)
        assert item_vectors.chosen_embedder("auto") == expected
