import numpy as np
import pytest


@pytest.fixture(scope="session")
def vectors():
    """300 vectors of width 12: clusters in clusters, and one far from zero as embeddings are."""
    random = np.random.default_rng(0)
    coarse, fine = random.normal(size=(6, 12)) * 3, random.normal(size=(6, 12))
    rows = coarse[random.integers(0, 6, 300)] + fine[random.integers(0, 6, 300)]
    return (rows + 0.1 * random.normal(size=rows.shape) + 2.0).astype(np.float32)
