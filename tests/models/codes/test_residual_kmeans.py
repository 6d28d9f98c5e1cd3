import numpy as np

from taiji.models.codes import kmeans
from taiji.models.codes.kmeans import means_of, nearest
from taiji.models.codes.residual_kmeans import ResidualKMeans, residual_codes
from taiji.testing import check_deterministic, check_vector_coder

SMALL = ResidualKMeans.Settings(levels=3, size=8, iterations=5)


def test_it_keeps_the_contract(vectors):
    check_vector_coder(ResidualKMeans(SMALL).fit(vectors), vectors)
    check_deterministic(lambda seed: ResidualKMeans(SMALL).fit(vectors, seed=seed))


def test_each_level_takes_the_nearest_centroid_to_what_is_left(vectors):
    coder = ResidualKMeans(SMALL).fit(vectors)
    codes, left = coder.encode(vectors), vectors.astype(np.float64) - coder.mean
    for level, book in enumerate(coder.codebooks):
        distances = ((left[:, None] - book) ** 2).sum(axis=2)
        assert np.array_equal(codes[:, level], distances.argmin(axis=1))
        left = left - book[codes[:, level]]
    np.testing.assert_allclose(coder.decode(codes), vectors - left, atol=1e-12)


def test_residual_energy_never_rises():
    random = np.random.default_rng(3)
    for rows, size in [(500, 4), (30, 16), (5, 8), (1, 2)]:
        data = random.standard_t(2, size=(rows, 6)) + 5.0
        energies = ResidualKMeans(ResidualKMeans.Settings(levels=4, size=size)).fit(data).residual_energies(data)
        assert (np.diff(energies) <= 1e-9 * energies[0]).all()
        assert np.isclose(energies[0], data.var(axis=0).sum())


def test_entries_of_a_codebook_are_coded_as_themselves(vectors):
    coder = ResidualKMeans(SMALL).fit(vectors)
    first = np.arange(8)[:, None]
    assert np.array_equal(coder.encode(coder.decode(first))[:, :1], first)


def test_sums_of_entries_of_a_coarse_and_a_fine_codebook_come_back():
    books = np.stack([np.diag([100.0] * 4), np.diag([1.0] * 4)])
    wanted = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2)
    codes, left = residual_codes(books[0][wanted[:, 0]] + books[1][wanted[:, 1]], books)
    assert np.array_equal(codes, wanted) and not left.any()


def test_few_distinct_vectors_are_kept_exactly():
    data = np.repeat(np.eye(5), 3, axis=0)
    coder = ResidualKMeans(ResidualKMeans.Settings(levels=2, size=8)).fit(data)
    np.testing.assert_allclose(coder.decode(coder.encode(data)), data, atol=1e-7)
    assert coder.sizes == (8, 8)


def test_of_equal_centroids_the_first_is_taken_in_any_company():
    random = np.random.default_rng(5)
    book = random.normal(size=(257, 33))
    book[200:] = book[3]
    rows = book[3] + 1e-3 * random.normal(size=(70, 33))
    assert (nearest(rows, book) == 3).all()
    assert all(nearest(row[None], book) == 3 for row in rows)


def test_means_of_codes_that_nothing_has_stay():
    rows, codes = np.asarray([[1.0], [3.0], [10.0]]), np.asarray([2, 2, 0])
    assert means_of(rows, codes, np.asarray([[5.0], [6.0], [7.0]])).ravel().tolist() == [10.0, 6.0, 2.0]


def test_blocks_change_no_code(monkeypatch):
    random = np.random.default_rng(0)
    rows, book, factors = random.normal(size=(50, 3)), random.normal(size=(7, 3)), random.uniform(0.5, 2, 7)
    whole = nearest(rows, book, factors)
    monkeypatch.setattr(kmeans, "BLOCK", 20)
    assert np.array_equal(nearest(rows, book, factors), whole)
    assert np.array_equal(whole, (((rows[:, None] - book) ** 2).sum(axis=2) * factors).argmin(axis=1))
