"""Many gradients of one shared forward: those of as many passes, exactly."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from tests.language.prefix_models import family, rollouts, unshared, with_lora

from taiji.language import prefix_attention, prefix_gradients
from taiji.language.prefix_forward import shared_logprobs
from taiji.language.prefix_gradients import row_factors, split_logprobs
from taiji.language.prefix_lora import fuse_adapters


def exact_norms(model):
    """Let root-mean-square norms work in float64, where transformers' own go through float32."""

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(forward, module)


def adapted(name="llama", dtype=torch.float64):
    model = with_lora(family(name)).to(dtype)
    if dtype == torch.float64:
        exact_norms(model)
    fuse_adapters(model)
    return model, [p for p in model.parameters() if p.requires_grad]


def batch():
    """Two prompts with a common beginning, ragged rollouts, one of them twice, one of them empty."""
    rows, starts = rollouts(prompts=(25, 31), lengths=(5, 9, 1, 12, 0))
    common = list(range(3, 23))
    rows = [common + row for row in rows]
    return [*rows, rows[1]], [start + len(common) for start in (*starts, starts[1])]


def vectors(kind, sizes, count=5):
    """(count, N) that are multiples of one vector in each sequence, or combine two, or as they come; the last is
    zero."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    total = sum(sizes)
    row = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    found = random(count, len(sizes))[:, row] * random(total)
    if kind == "two":
        found = found + random(count, 1) * random(total)
    if kind == "any":
        found = random(count, total)
    found[-1] = 0
    return found


def apart(model, parameters, rows, starts, wanted):
    """The gradients by a pass for each vector."""
    logprobs = torch.cat(shared_logprobs(model, rows, starts).logprobs)
    return [
        torch.autograd.grad(logprobs, parameters, vector.to(logprobs.dtype), retain_graph=True) for vector in wanted
    ]


def jointly(model, parameters, rows, starts, wanted, **options):
    found = split_logprobs(model, rows, starts, **options)
    values, graphs = found
    return values, list(graphs.products(wanted.to(values.logprobs[0].dtype), parameters))


def worst(found, expected):
    """Largest error of a gradient, relative to its norm."""
    errors = []
    for one, other in zip(found, expected):
        one, other = (torch.cat([torch.zeros(0), *(t.flatten().double() for t in g)]) for g in (one, other))
        errors.append(float((one - other).norm() / other.norm().clamp(min=1e-30)))
    return max(errors)


@pytest.mark.parametrize("kind", ["one", "two", "any"])
def test_equal_to_a_pass_for_each_vector(kind):
    model, parameters = adapted()
    rows, starts = batch()
    wanted = vectors(kind, [len(row) - start for row, start in zip(rows, starts)])
    values, found = jointly(model, parameters, rows, starts, wanted)
    expected = shared_logprobs(model, rows, starts)
    assert torch.allclose(torch.cat(values.logprobs), torch.cat(expected.logprobs), atol=1e-12, rtol=0)
    assert torch.allclose(torch.cat(values.entropies), torch.cat(expected.entropies), atol=1e-12, rtol=0)
    with torch.no_grad():
        some = [n for n, (row, start) in enumerate(zip(rows, starts)) if len(row) > start]
        alone = unshared(model, [rows[n] for n in some], [starts[n] for n in some])[0]
    assert torch.allclose(torch.cat(values.logprobs).float(), alone.float(), atol=1e-5)
    assert worst(found, apart(model, parameters, rows, starts, wanted)) <= 1e-12


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_other_families_and_gradient_checkpointing(name, checkpointing):
    model, parameters = adapted(name, torch.float32)
    rows, starts = batch()
    wanted = vectors("one", [len(row) - start for row, start in zip(rows, starts)])
    expected = apart(model, parameters, rows, starts, wanted)
    if checkpointing:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    _, found = jointly(model, parameters, rows, starts, wanted)
    assert worst(found, expected) < 1e-5


@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
@pytest.mark.parametrize("products", [False, True], ids=["flash", "products"])
def test_half_precision_is_as_exact_as_a_pass_for_each_vector(monkeypatch, autocast, products):
    monkeypatch.setattr(prefix_attention, "products_pay", lambda: products)
    rows, starts = batch()
    wanted = vectors("one", [len(row) - start for row, start in zip(rows, starts)])[:-1]
    model, parameters = adapted(dtype=torch.float32)
    truth = apart(model, parameters, rows, starts, wanted)
    for parameter in model.parameters():
        if not parameter.requires_grad and not autocast:
            parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        theirs = apart(model, parameters, rows, starts, wanted)
        _, ours = jointly(model, parameters, rows, starts, wanted)
    assert 0 < worst(ours, truth) < 1.3 * worst(theirs, truth)


def test_one_pass_through_what_is_private(monkeypatch):
    model, parameters = adapted()
    rows, starts = batch()
    wanted = vectors("one", [len(row) - start for row, start in zip(rows, starts)])
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(len(a[0])) or grad(*a, **k))
    jointly(model, parameters, rows, starts, wanted)
    assert len(passes) == 1 + len(wanted)


def test_what_is_left_to_a_pass_for_each_vector(monkeypatch):
    rows, starts = batch()
    model, _ = adapted()
    assert split_logprobs(model, rows, starts) is not None
    assert split_logprobs(model, [[1, 2, 3], [4, 5]], [1, 1]) is None, "nothing shared"
    assert split_logprobs(model, [rows[0], rows[0]], [starts[0]] * 2) is None, "nothing private"
    whole = family("llama")
    assert split_logprobs(whole, rows, starts) is None, "all parameters are trained"
    model.get_input_embeddings().weight.requires_grad_()
    assert split_logprobs(model, rows, starts) is None, "the embedding is trained, too"
    dropping = with_lora(family("llama"), dropout=0.5).train()
    fuse_adapters(dropping)
    assert split_logprobs(dropping, rows, starts) is None, "dropout is at work"
    model, _ = adapted()
    monkeypatch.setattr(prefix_gradients, "best_backend", lambda *_: "masked")
    assert split_logprobs(model, rows, starts) is None, "no kernels"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_factors_of_a_sequences_values(dtype):
    sizes = [3, 0, 7, 1]
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    for kind, most in (("one", 1), ("two", 2), ("any", 5)):
        values = (vectors(kind, sizes) * 10.0 ** torch.arange(-8, 2, 2)[:, None]).to(dtype)
        coefficients, basis = row_factors(values, row, 4)
        assert coefficients.shape == (len(basis), 5, 4) and len(basis) <= most
        made = torch.einsum("rdn,rn->dn", coefficients[:, :, row], basis)
        for number in range(4):
            inside = row == number
            errors = (made - values)[:, inside].norm(dim=1)
            size = values[:, inside].double().norm(dim=1)
            size = size if kind == "one" else size.amax()
            assert (errors <= 100 * torch.finfo(dtype).eps * size).all()
    values[0, 0] = torch.nan
    coefficients, basis = row_factors(values, row, 4)
    assert torch.isnan(torch.einsum("rdn,rn->dn", coefficients[:, :, row], basis)).any()
