import numpy as np
import torch

from taiji.models.codes import rq_vae
from taiji.models.codes.kmeans import nearest
from taiji.models.codes.rq_vae import RQVAE, quantised, restart_dead, straight_through
from taiji.testing import check_deterministic, check_vector_coder

SMALL = RQVAE.Settings(levels=2, size=6, latent=4, hidden=(8,), steps=20, batch=64, restart=5)


def test_it_keeps_the_contract(vectors):
    check_vector_coder(RQVAE(SMALL).fit(vectors), vectors)
    check_deterministic(lambda seed: RQVAE(SMALL).fit(vectors, seed=seed))


def test_quantising_passes_the_gradient_on_unchanged():
    latent = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    books = torch.randn(2, 4, 3, dtype=torch.float64)
    coded, _, codes, _ = quantised(latent, books, torch.ones(2, 4, dtype=torch.float64), 0.25)
    direct = coded.detach().clone().requires_grad_()
    for values in (straight_through(latent, coded), direct):
        (values.sin() * torch.arange(3.0, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(latent.grad, direct.grad)
    torch.testing.assert_close(coded, books[0][codes[:, 0]] + books[1][codes[:, 1]])


def test_the_pull_moves_entries_to_means_and_latents_to_entries():
    latent = torch.tensor([[1.0, 0.0], [3.0, 0.0]], requires_grad=True)
    books = torch.tensor([[[0.0, 0.0], [50.0, 50.0]]], requires_grad=True)
    _, pull, codes, left = quantised(latent, books, torch.ones(1, 2), 0.25)
    assert codes.tolist() == [[0], [0]] and pull.item() == (1 + 9) / 2 * 1.25
    pull.backward()
    assert books.grad[0].tolist() == [[-4.0, 0.0], [0.0, 0.0]]  # −2 · mean of the residuals
    assert latent.grad.tolist() == [[0.25, 0.0], [0.75, 0.0]]  # 2 β (r − e) / B
    assert torch.equal(left[0], latent.detach())


def test_factors_decide_between_entries():
    latent, books = torch.tensor([[0.4]]), torch.tensor([[[0.0], [1.0]]])
    codes = [quantised(latent, books, torch.tensor([factors]), 0.0)[2].item() for factors in ([1.0, 1.0], [1.3, 0.5])]
    assert codes == [0, 1]
    assert [nearest(latent.numpy(), books[0].numpy(), np.asarray(f)).item() for f in ([1.0, 1.0], [1.3, 0.5])] == codes


def test_dead_entries_are_placed_on_what_their_level_codes():
    books, before = torch.zeros(2, 3, 2), torch.arange(20.0).view(2, 5, 2)
    restart_dead(books, torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]), before, np.random.default_rng(0))
    assert not books[0][[0, 2]].any() and not books[1][[1, 2]].any()
    assert (before[0] == books[0][1]).all(dim=1).any() and (before[1] == books[1][0]).all(dim=1).any()


def test_entries_that_are_out_of_reach_at_the_start_come_into_use(monkeypatch, vectors):
    def far(rows, levels, size, seed):
        return np.where(np.arange(size)[:, None] > 0, 1000.0, np.zeros((levels, size, rows.shape[1]))).astype(
            np.float32
        )

    monkeypatch.setattr(rq_vae, "_start", far)
    used = []
    for restart in (5, 1000):
        settings = SMALL.model_copy(update={"restart": restart})
        used.append([len(np.unique(column)) for column in RQVAE(settings).fit(vectors).encode(vectors).T])
    assert min(used[0]) >= 3 and used[1] == [1, 1]


def test_latent_energy_never_rises_and_training_explains_the_vectors(vectors):
    coder = RQVAE(RQVAE.Settings(levels=3, size=8, latent=6, hidden=(16,), steps=100, rate=0.01)).fit(vectors)
    left = coder.latents(vectors.astype(float))
    energies = [(left**2).sum(axis=1).mean()]
    for book, codes in zip(coder.codebooks, coder.encode(vectors).T):
        left = left - book[codes]
        energies.append((left**2).sum(axis=1).mean())
    assert (np.diff(energies) <= 1e-6 * energies[0]).all()
    found = coder.residual_energies(vectors)
    assert found[-1] < 0.3 * found[0]
