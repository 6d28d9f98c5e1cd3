import torch

from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import text_module
from taiji.nn.text import Experts, Projection


def test_the_settings_name_the_module():
    kinds = {"projection": Projection, "experts": Experts}
    for text, kind in kinds.items():
        assert isinstance(text_module(12, 4, 3, RankerSettings(text=text, chunks=3)), kind)


def test_rows_without_a_vector_get_nothing():
    torch.manual_seed(0)
    vector, fields, present = torch.randn(5, 12), torch.randn(5, 3, 4), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    for text in ("projection", "experts"):
        module = text_module(12, 4, 3, RankerSettings(text=text, chunks=3))
        out = module(vector, present, fields).flatten(1)
        assert torch.all(out[[1, 3]] == 0) and torch.all(out[[0, 2, 4]].abs().sum(dim=1) > 0)
