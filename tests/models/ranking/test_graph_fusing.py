"""The form of a graph for inference: the same values, with fewer operations and without a trace in its inputs."""

import logging
import operator

import pytest
import torch
from tests.models.ranking.random_graphs import SIDES, RandomGraph, split_batch
from tests.models.ranking.test_split_inputs import CASES, IDS, asked, untrained
from tests.models.ranking.test_split_weights import rewritten
from torch import fx, nn

from taiji.models.ranking import split_weights as steps
from taiji.models.ranking.graph_fusing import FEW, fill_masked_, fused, mean_few, sum_few
from taiji.models.ranking.split_inputs import split_network


def traced(forward, *names):
    """A graph of a function of tensors."""
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    inputs = [fx.Proxy(graph.placeholder(name), tracer) for name in names]
    graph.output(forward(*inputs).node)
    return fx.GraphModule(nn.Module(), graph)


def targets(graph):
    return [node.target for node in graph.graph.nodes]


def same(graph, *inputs):
    """Check that the faster form gives the same bytes twice and leaves its inputs alone; return it."""
    made, kept = fused(graph, inputs), [values.clone() for values in inputs]
    expected = graph(*inputs)
    for _ in range(2):
        assert torch.equal(made(*inputs), expected)
    assert all(torch.equal(before, after) for before, after in zip(kept, inputs))
    return made


X, Y = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))


def test_a_result_that_nobody_reads_again_is_overwritten():
    made = same(traced(lambda x, y: torch.exp((x + y) * 2.0 - y) / y, "x", "y"), X, Y)
    assert targets(made)[2:-1] == [operator.add, "mul_", "sub_", "exp_", "div_"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, y: (x + y) * (x + y).sum(1, keepdim=True),
        lambda x, y: torch.exp(total := x + y) + total,
        lambda x, y: torch.exp((total := x * y)[:, 0]).unsqueeze(1) + total[:, 1:2].neg() + torch.exp(total),
        lambda x, y: (total := x + y).view(3, 8).exp().view(6, 4) + total,
        lambda x, y: torch.exp(x.view(24)).view(6, 4) + y,
        lambda x, y: (part := (total := x + y)[:, :2]) * 2.0 + torch.exp(total)[:, :2] + part,
        lambda x, y: (total := x * y).transpose(0, 1).exp().transpose(0, 1) * 2.0 + total * y,
        lambda x, y: torch.cat([torch.cat([x, y], 1), x * y], 1).masked_fill(torch.cat([x, y, y], 1) > 0, 3.0),
    ],
    ids=[
        "read later",
        "read by a sum",
        "slices",
        "views",
        "views of an input",
        "slices read later",
        "transposed",
        "mask",
    ],
)
def test_what_is_read_again_is_kept(forward):
    same(traced(forward, "x", "y"), X, Y)


def test_a_graph_that_changes_a_tensor_itself_is_left_as_it_is():
    graph = traced(lambda x, y: (x + y).add_(1.0), "x", "y")
    assert fused(graph, (X, Y)) is graph


def test_repeated_operations_are_computed_once_but_not_random_ones():
    made = fused(
        traced(lambda x, y: (x + y).neg() * (x + y) + torch.rand_like(x) - torch.rand_like(x), "x", "y"), (X, Y)
    )
    assert targets(made).count(operator.add) + targets(made).count("add_") == 2  # x + y, and the first random numbers
    assert targets(made).count(torch.rand_like) == 2


def test_layers_with_the_same_input_become_one():
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.alone = nn.Linear(4, 3, bias=False), nn.Linear(4, 2, bias=False), nn.Linear(4, 2)

        def forward(self, x):
            return torch.cat([torch.relu(self.one(x)), self.other(x) + 1.0, self.alone(x)], 1)

    graph = fx.symbolic_trace(Two().eval())
    with torch.no_grad():
        made = fused(graph, (X,))
        torch.testing.assert_close(made(X), graph(X), rtol=1e-6, atol=1e-6)
    assert sum(node.op == "call_module" for node in made.graph.nodes) == 2


@pytest.mark.parametrize("size", range(1, FEW + 3))
def test_a_few_summands_are_added_one_after_the_other(size):
    for shape, axis in (((50, size, 8), 1), ((50, 3, size), 2), ((size, 7), 0), ((9, size), -1)):
        values = torch.randn(shape)
        torch.testing.assert_close(sum_few(values, axis), values.sum(axis), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(mean_few(values, axis), values.mean(axis), rtol=1e-6, atol=1e-6)
    assert torch.equal(sum_few(torch.ones(3, 2, dtype=torch.int32), 1), torch.tensor([2, 2, 2]))


def test_a_mask_is_looked_at_first():
    mask = torch.zeros(1, 4, dtype=torch.bool)
    assert torch.equal(fill_masked_(X.clone(), mask, 7.0), X)
    mask[0, 2] = True
    assert torch.equal(fill_masked_(X.clone(), mask, 7.0), X.masked_fill(mask, 7.0))


def test_random_graphs_keep_their_values(monkeypatch):
    for seed in range(12):
        torch.manual_seed(seed)
        network, batch = RandomGraph(seed), split_batch()
        with monkeypatch.context() as patch:
            patch.setattr(steps, "_faster", lambda found, examples: found)
            plain = rewritten(network, batch, SIDES)
        found, more = rewritten(network, batch, SIDES), split_batch(7, requests=2, times=5)
        with torch.inference_mode():
            expected, values = (each.score(each.encode(more), more) for each in (plain, found))
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_every_ranker_is_made_faster_without_another_score(kind, settings, shop, exposures, monkeypatch, caplog):
    ranker, frame = untrained(kind, settings, shop, exposures)
    requests, slate = asked(frame, shop)
    with caplog.at_level(logging.WARNING):
        state = ranker.encode(requests)
        found = ranker.score(state, slate)
        again = ranker.score(state, slate)
    assert "could not be optimised" not in caplog.text and all((found[head] == again[head]).all() for head in found)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "_faster", lambda found, examples: found)
        plain = split_network(ranker.network, ranker.fieldset, "cpu")
    before = sum(len(part.graph.nodes) for part in (plain.request, plain.candidates))
    assert sum(len(part.graph.nodes) for part in (state.split.request, state.split.candidates)) < before
    ranker._split.found = plain
    expected = ranker.score(ranker.encode(requests), slate)
    for head, values in expected.items():
        assert abs(found[head] - values).max() <= 1e-6
