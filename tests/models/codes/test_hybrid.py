import numpy as np

from taiji.models.codes.hybrid import Hybrid
from taiji.models.codes.residual_kmeans import ResidualKMeans
from taiji.testing import check_deterministic, check_vector_coder

SMALL = Hybrid.Settings(coarse=2, size=6, grid=(2, 2, 3), iterations=5)


def test_it_keeps_the_contract(vectors):
    coder = Hybrid(SMALL).fit(vectors)
    check_vector_coder(coder, vectors)
    check_deterministic(lambda seed: Hybrid(SMALL).fit(vectors, seed=seed))
    assert coder.sizes == (6, 6, 12)


def test_with_a_grid_of_one_cell_it_is_residual_k_means(vectors):
    hybrid = Hybrid(Hybrid.Settings(coarse=2, size=6, grid=(), iterations=5)).fit(vectors, seed=3)
    plain = ResidualKMeans(ResidualKMeans.Settings(levels=2, size=6, iterations=5)).fit(vectors, seed=3)
    codes = hybrid.encode(vectors)
    assert hybrid.sizes == (6, 6, 1) and not codes[:, 2].any()
    assert np.array_equal(codes[:, :2], plain.encode(vectors))
    np.testing.assert_allclose(hybrid.decode(codes), plain.decode(codes[:, :2]), atol=1e-5)


def test_residual_energy_never_rises_and_the_grid_tells_items_apart(vectors):
    coder = Hybrid(Hybrid.Settings(coarse=2, size=6, grid=(2,) * 60)).fit(vectors)
    energies = coder.residual_energies(vectors)
    assert (np.diff(energies) <= 1e-5 * energies[0]).all() and energies[3] < 0.8 * energies[2]
