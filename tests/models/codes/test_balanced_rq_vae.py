import numpy as np
import pytest
import torch

from taiji.models.codes.balanced_rq_vae import BalancedRQVAE, shortfall
from taiji.models.codes.kmeans import nearest
from taiji.models.codes.quality import entropies
from taiji.models.codes.rq_vae import RQVAE
from taiji.testing import check_vector_coder

SMALL = {"levels": 2, "size": 8, "latent": 4, "hidden": (8,), "steps": 40, "batch": 128}


def test_it_keeps_the_contract(vectors):
    check_vector_coder(BalancedRQVAE(BalancedRQVAE.Settings(**SMALL)).fit(vectors), vectors)


def test_without_balance_and_repulsion_it_is_the_plain_one(vectors):
    off = BalancedRQVAE(BalancedRQVAE.Settings(**SMALL, balance=0.0, uniformity=0.0)).fit(vectors, seed=2)
    plain = RQVAE(RQVAE.Settings(**SMALL)).fit(vectors, seed=2)
    for name, values in plain.weights().items():
        np.testing.assert_array_equal(off.weights()[name], values, name)


def test_factors_are_bounded_and_favour_what_is_little_used():
    coder = BalancedRQVAE(BalancedRQVAE.Settings(balance=0.3))
    factors = coder.distance_factors(torch.tensor([[0.0, 0.25, 0.5, 0.9]]))
    assert factors.tolist() == [pytest.approx([0.7, 1.0, 1.3, 1.3])]


def test_an_entry_is_coded_as_itself_under_any_factors():
    random = np.random.default_rng(0)
    book = random.normal(size=(20, 5))
    assert np.array_equal(nearest(book, book, random.uniform(0.7, 1.3, 20)), np.arange(20))


def test_repulsion_is_the_mean_over_pairs():
    random = np.random.default_rng(0)
    books = random.normal(size=(2, 5, 3))
    pairs = [(level, i, j) for level in range(2) for i in range(5) for j in range(i)]
    wanted = np.mean([max(0, 2 - np.linalg.norm(books[n, i] - books[n, j])) ** 2 for n, i, j in pairs])
    assert shortfall(torch.as_tensor(books), 2.0).item() == pytest.approx(wanted)
    assert shortfall(torch.zeros(1, 1, 3), 1.0) == 0


def test_balance_evens_a_skewed_catalogue():
    """One dense cluster has nine tenths of the vectors."""
    random = np.random.default_rng(1)
    rows = np.concatenate([0.3 * random.normal(size=(540, 6)), 3 + random.normal(size=(60, 6))])
    coders = [BalancedRQVAE(BalancedRQVAE.Settings(**SMALL, balance=b, uniformity=0.0)).fit(rows) for b in (0.0, 0.9)]
    plain, even = (entropies(coder.encode(rows)).sum() for coder in coders)
    assert even > plain
