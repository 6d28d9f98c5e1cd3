import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import text_module
from taiji.nn.text import Experts, Projection, SelectAlign


def test_the_settings_name_the_module():
    kinds = {"projection": Projection, "experts": Experts, "select_align": SelectAlign}
    for text, kind in kinds.items():
        assert isinstance(text_module(12, 4, 3, RankerSettings(text=text, chunks=3)), kind)


def test_rows_without_a_vector_get_nothing():
    torch.manual_seed(0)
    vector, fields, present = torch.randn(5, 12), torch.randn(5, 3, 4), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    for text in ("projection", "experts", "select_align"):
        module = text_module(12, 4, 3, RankerSettings(text=text, chunks=3))
        if isinstance(module, SelectAlign):
            torch.nn.init.normal_(module.output.weight)
        out = module(vector, present, fields).flatten(1)
        assert torch.all(out[[1, 3]] == 0) and torch.all(out[[0, 2, 4]].abs().sum(dim=1) > 0)


def test_selection_starts_from_nothing():
    module = SelectAlign(12, 4, 3)
    assert torch.all(module(torch.randn(5, 12), torch.ones(5), torch.randn(5, 3, 4)) == 0)


def test_planted_noise_chunks_get_lower_weights():
    """Chunks that carry the label against chunks of noise: the weight tells them apart."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    rows, chunks, width = 2000, 4, 8
    label = random.integers(0, 2, rows)
    useful = random.random((rows, chunks)) < 0.5
    direction, noise = random.normal(size=(2, width))
    signal = np.where(label[:, None, None] == 1, direction, -direction) + 0.3 * random.normal(
        size=(rows, chunks, width)
    )
    junk = 2 * noise + 2 * random.normal(size=(rows, chunks, width))
    vector = torch.tensor(np.where(useful[:, :, None], signal, junk), dtype=torch.float32).flatten(1)
    module, head, fields = SelectAlign(chunks * width, 8, chunks), torch.nn.Linear(16, 1), torch.ones(rows, 2, 8)
    optimiser = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.02)
    target = torch.tensor(label, dtype=torch.float32)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(module(vector, torch.ones(rows), fields).flatten(1)).squeeze(1), target
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    weights = module.chunk_weights(module.project(vector.view(rows, chunks, width)), fields).detach().numpy()
    assert roc_auc_score(useful.ravel(), weights.ravel()) > 0.8
