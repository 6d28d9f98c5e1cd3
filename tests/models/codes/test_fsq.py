import numpy as np
import pytest
from pydantic import ValidationError

from taiji.models.codes.fsq import FSQ, directions, even_thresholds, grid_codes, grid_digits
from taiji.testing import check_deterministic, check_vector_coder

SMALL = FSQ.Settings(levels=2, size=12, grid=(2, 3, 2))


def test_it_keeps_the_contract(vectors):
    coder = FSQ(SMALL).fit(vectors)
    check_vector_coder(coder, vectors)
    check_deterministic(lambda seed: FSQ(SMALL).fit(vectors, seed=seed))
    assert coder.sizes == (12, 12)


@pytest.mark.parametrize("grid", [(2, 3, 4), (2,) * 7, (5,), ()], ids=str)
def test_cells_and_digits_are_one_to_one(grid):
    cells = np.arange(np.prod(grid, dtype=int))
    digits = grid_digits(cells, grid)
    assert (digits < np.asarray(grid, int)).all() and len(np.unique(digits, axis=0)) == max(len(cells), 1)
    assert np.array_equal(grid_codes(digits, grid), cells)


def test_every_cell_is_the_code_of_some_vector(vectors):
    grid = (2, 3, 4)
    coder = FSQ(FSQ.Settings(levels=2, size=24, grid=grid)).fit(vectors)
    edges = [np.r_[low[0] - 1, low[np.isfinite(low)], low[np.isfinite(low)][-1] + 1] for low in coder.thresholds]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    cells = np.stack(np.meshgrid(np.arange(24), np.arange(24)), axis=-1).reshape(-1, 2)
    digits = grid_digits(cells, grid).reshape(len(cells), -1)
    wanted = np.stack([middle[column] for middle, column in zip(middles, digits.T)], axis=1)
    rows = np.linalg.lstsq(coder.projection.T.astype(float), wanted.T, rcond=None)[0].T + coder.mean
    assert np.array_equal(coder.encode(rows), cells)


def test_levels_are_used_alike(vectors):
    coder = FSQ(FSQ.Settings(levels=1, size=12, grid=(2, 3, 2))).fit(vectors)
    digits = grid_digits(coder.encode(vectors), (2, 3, 2))[:, 0]
    assert [np.bincount(column).tolist() for column in digits.T] == [[150, 150], [100, 100, 100], [150, 150]]


def test_thresholds_lie_between_values():
    values = np.asarray([[3.0, 7.0], [1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    np.testing.assert_array_equal(even_thresholds(values, (4, 2)), [[1.5, 2.5, 3.5], [7.0, np.inf, np.inf]])
    assert even_thresholds(values[:1], (2, 2)).ravel().tolist() == [3.0, 7.0]


def test_a_grid_of_other_than_size_cells_is_rejected():
    with pytest.raises(ValidationError, match="27 cells"):
        FSQ.Settings(size=8, grid=(3, 3, 3))
    with pytest.raises(ValidationError):
        FSQ.Settings(size=2, grid=(2, 1))


def test_residual_energy_never_rises(vectors):
    coder = FSQ(FSQ.Settings(levels=4, size=4, grid=(2, 2))).fit(vectors)
    energies = coder.residual_energies(vectors)
    assert (np.diff(energies) <= 1e-5 * energies[0]).all() and energies[-1] < 0.7 * energies[0]


def test_the_vectors_have_unit_variance_in_every_direction(vectors):
    rows = vectors - vectors.mean(axis=0)
    projected = rows @ directions(rows, 2, 3, seed=0)
    np.testing.assert_allclose((projected**2).mean(axis=0), 1.0, rtol=1e-5)
    assert directions(rows, 3, 6, seed=0).shape == (12, 18)
