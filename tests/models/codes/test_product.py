import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.features.settings import FeatureSettings
from taiji.models.codes.product import ProductCodes, ProductQuantizer
from taiji.testing import check_vector_coder


def test_vectors_made_of_few_parts_are_kept_exactly():
    random = np.random.default_rng(0)
    parts = random.normal(size=(2, 4, 3)).astype(np.float32)
    choice = random.integers(0, 4, size=(200, 2))
    vectors = parts[[0, 1], choice].reshape(200, 6)
    quantizer = ProductQuantizer.fit(vectors, FeatureSettings(slots=2, bits=2))
    assert np.array_equal(quantizer.decode(quantizer.encode(vectors)), vectors)
    metrics = quantizer.metrics(vectors)
    assert metrics["utilisation"] == 1.0 and metrics["distortion"] < 1e-9 and metrics["collisions"] == 0.0


def test_ids_name_the_nearest_centroid_of_each_slot():
    random = np.random.default_rng(1)
    vectors = random.normal(size=(300, 10)).astype(np.float32)
    quantizer = ProductQuantizer.fit(vectors, FeatureSettings(slots=4, bits=3))
    padded = np.concatenate([vectors, np.zeros((300, 2), np.float32)], axis=1).reshape(300, 4, 3)
    distance = ((padded[:, :, None] - quantizer.centroids[None]) ** 2).sum(axis=3)
    chosen = np.take_along_axis(distance, quantizer.encode(vectors)[:, :, None].astype(int), axis=2)[:, :, 0]
    assert np.allclose(chosen, distance.min(axis=2), atol=1e-5)


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 9),
    slots=st.integers(1, 5),
    bits=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_any_number_of_training_vectors_will_do(rows, width, slots, bits, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    settings = FeatureSettings(slots=slots, bits=bits)
    quantizer = ProductQuantizer.fit(vectors, settings, seed)
    ids = quantizer.encode(vectors)
    assert ids.shape == (rows, slots) and ids.max() < quantizer.codes <= 2**bits
    if rows <= 2**bits:
        assert np.allclose(quantizer.decode(ids), vectors)
    assert quantizer.version == ProductQuantizer.fit(vectors, settings, seed).version


def test_finer_ids_distort_less():
    vectors = np.random.default_rng(2).normal(size=(500, 16)).astype(np.float32)
    distortion = [
        ProductQuantizer.fit(vectors, FeatureSettings(slots=4, bits=bits)).metrics(vectors)["distortion"]
        for bits in (1, 3, 6)
    ]
    assert distortion[0] > distortion[1] > distortion[2] and distortion[0] < 1


def test_repeated_vectors_do_not_count_as_collisions():
    vectors = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    assert ProductQuantizer.fit(vectors, FeatureSettings(slots=2, bits=3)).metrics(vectors)["collisions"] == 0.0


def test_save_and_load_keep_ids_and_version(tmp_path):
    vectors = np.random.default_rng(4).normal(size=(100, 8)).astype(np.float32)
    quantizer = ProductQuantizer.fit(vectors, FeatureSettings(slots=2, bits=4))
    quantizer.save(tmp_path / "q")
    loaded = ProductQuantizer.load(tmp_path / "q")
    assert loaded.version == quantizer.version and np.array_equal(loaded.encode(vectors), quantizer.encode(vectors))
    assert ProductQuantizer.fit(vectors[:50], FeatureSettings(slots=2, bits=4)).version != quantizer.version


def test_wrong_input_is_explained(tmp_path):
    quantizer = ProductQuantizer.fit(np.eye(4, dtype=np.float32))
    with pytest.raises(TaijiError, match=r"expected: a finite array \(N, 4\)"):
        quantizer.encode(np.zeros((2, 5)))
    with pytest.raises(TaijiError, match="not finite"):
        quantizer.encode(np.full((2, 4), np.nan))
    with pytest.raises(TaijiError, match="no vectors to fit"):
        ProductQuantizer.fit(np.zeros((0, 4)))
    quantizer.save(tmp_path / "q")
    (tmp_path / "q" / "quantizer.safetensors").write_bytes(b"no")
    with pytest.raises(TaijiError, match="Could not read the quantiser"):
        ProductQuantizer.load(tmp_path / "q")


def test_it_is_a_coder(vectors):
    coder = ProductCodes(ProductCodes.Settings(slots=5, bits=3)).fit(vectors)
    check_vector_coder(coder, vectors)
    quantizer = ProductQuantizer.fit(vectors, FeatureSettings(slots=5, bits=3))
    assert np.array_equal(coder.encode(vectors), quantizer.encode(vectors)) and coder.sizes == (8,) * 5
    np.testing.assert_array_equal(coder.decode(coder.encode(vectors)), quantizer.decode(quantizer.encode(vectors)))
    assert (np.diff(coder.residual_energies(vectors)) <= 0).all()
