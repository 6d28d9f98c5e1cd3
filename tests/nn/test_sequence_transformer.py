"""A sequence's states are the same packed or alone, and depend on nothing newer."""

import numpy as np
import pytest
import torch

from taiji.nn.packing import pack
from taiji.nn.sequence_transformer import SequenceTransformer, packed_causal_mask

WIDTH, LENGTH = 8, 6


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SequenceTransformer(WIDTH, 2, 2, LENGTH, 0.1).double().eval()


def alone(model, x):
    size = len(x)
    place = torch.arange(size - 1, -1, -1)[None]
    return model(x[None], place, torch.ones(1, size, dtype=torch.int64))[0]


def test_packed_equals_alone(model):
    lengths = np.array([3, 1, 6, 2, 4])
    sequences = [torch.randn(n, WIDTH, dtype=torch.float64) for n in lengths]
    packing = pack(lengths, LENGTH)
    flat = torch.from_numpy(packing.places(lengths))
    x = torch.randn(packing.rows * LENGTH, WIDTH, dtype=torch.float64)  # padding holds anything
    place, segment = (torch.zeros(packing.rows * LENGTH, dtype=torch.int64) for _ in range(2))
    x[flat] = torch.cat(sequences)
    place[flat] = torch.cat([torch.arange(n - 1, -1, -1) for n in lengths])
    segment[flat] = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.from_numpy(lengths))
    shape = (packing.rows, LENGTH)
    states = model(x.view(*shape, WIDTH), place.view(shape), segment.view(shape)).flatten(0, 1)[flat]
    torch.testing.assert_close(states, torch.cat([alone(model, s) for s in sequences]), rtol=0, atol=1e-12)
    assert torch.isfinite(states).all()


def test_nothing_newer_is_read(model):
    x = torch.randn(5, WIDTH, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(alone(model, x)[2] @ torch.arange(8.0, dtype=torch.float64), x)
    assert (gradient[:3].abs().sum(dim=1) > 0).all() and (gradient[3:] == 0).all()


def test_mask():
    mask = packed_causal_mask(torch.tensor([[1, 1, 2, 0]]))[0, 0]
    assert mask.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
