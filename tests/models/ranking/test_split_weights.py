import numpy as np
import pytest
import torch
from tests.models.ranking.random_graphs import SIDES, WIDTH, RandomGraph, split_batch
from torch import nn

from taiji.models.ranking.graph_building import NotSeparable
from taiji.models.ranking.graph_colours import CANDIDATE, CONSTANT, REQUEST, Sides, colours, shapes_of, trace
from taiji.models.ranking.split_weights import SplitGraph, flops, split_weights

PAIR = Sides(like="item", rows="user", tiled=frozenset({"user"}))


def rewritten(network, batch=None, sides=PAIR) -> SplitGraph:
    return split_weights(network.double().eval(), batch or split_batch(), sides, tolerance=1e-9)


def difference(network, split, sides, seed=100):
    """Largest difference on other requests, relative to the largest output."""
    batch = split_batch(seed, requests=2, times=5)
    with torch.no_grad():
        expected, found = network(sides.whole(batch)), split.score(split.encode(batch), batch)
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1))


class Fusion(nn.Module):
    """A network over [user, item] of the given layers."""

    def __init__(self, *layers, wide=WIDTH):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, batch):
        return self.layers(torch.cat([batch["user"], batch["item"]], dim=1))


def linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_random_graphs_predict_the_same():
    assert sum(check_random_graph(seed) for seed in range(6)) > 6


def test_a_second_rewriting_changes_nothing():
    for seed in (0, 1, 92, 197):  # in the last two a slice leaves one side alone in a sum, which takes two rewritings
        check_idempotent(seed)


@pytest.mark.slow
def test_two_hundred_random_graphs_predict_the_same():
    assert sum(check_random_graph(seed) for seed in range(200)) > 200


@pytest.mark.slow
def test_a_second_rewriting_changes_nothing_in_two_hundred_random_graphs():
    for seed in range(200):
        check_idempotent(seed)


def random_split(seed):
    torch.manual_seed(seed)
    network = RandomGraph(seed).double().eval()
    return network, rewritten(network, split_batch(seed), SIDES)


def check_random_graph(seed):
    network, split = random_split(seed)
    assert difference(network, split, SIDES) <= 1e-12
    assert not linear_over_both_sides(split)
    return len(split.split)


def check_idempotent(seed):
    _, split = random_split(seed)
    names = [node.target for node in split.joint.graph.nodes if node.op == "placeholder"]
    own = frozenset(name for name in names if name in ("user", "seen") or name.startswith("request_"))
    again = split_weights(split.joint, split_batch(seed), Sides(like="item", rows="user", shared=own), tolerance=1e-12)
    assert not again.split and len(again.hoisted) == len(split.hoisted)
    assert steps(again.joint) == steps(split.joint)


def steps(module):
    return sorted((node.op, str(node.target)) for node in module.graph.nodes if node.op != "placeholder" or node.users)


def linear_over_both_sides(split):
    """Linear layers of the candidates' step that are fed by a concatenation with a request's part that was spread."""
    return [
        node
        for node in split.candidates.graph.nodes
        if node.op == "call_module"
        and isinstance(split.candidates.get_submodule(node.target), nn.Linear)
        and any(getattr(part.target, "__name__", "") == "spread" for part in node.all_input_nodes)
    ]


def test_colours_are_what_varies_between_the_candidates_of_a_request():
    for seed in range(8):
        torch.manual_seed(seed)
        network = RandomGraph(seed).double().eval()
        batch, other = split_batch(seed), split_batch(seed)
        for name in ("item", "asked", "numbers"):  # the candidates' inputs, all others as they were
            other[name] = other[name].flip(0)
        graph = trace(network, tuple(SIDES.whole(batch)))
        found = colours(graph, SIDES, shapes_of(network, graph, SIDES.whole(SIDES.first(batch))))
        values = [all_values(network, graph, SIDES.whole(inputs)) for inputs in (batch, other)]
        for node, colour in found.items():
            if node.op in ("placeholder", "output") or colour not in (REQUEST, CANDIDATE, CONSTANT):
                continue
            if node.op == "call_module" and isinstance(network.get_submodule(node.target), nn.ReLU):
                continue  # may be 0 for everybody
            assert (colour == CANDIDATE) == (not torch.equal(values[0][node], values[1][node])), node


def all_values(network, graph, batch):
    found = {}

    class Noting(torch.fx.Interpreter):
        def run_node(self, n):
            found[n] = super().run_node(n)
            return found[n]

    with torch.no_grad():
        Noting(network, graph=graph).run(*(batch[n.target] for n in graph.nodes if n.op == "placeholder"))
    return found


def test_a_fusion_layer_costs_what_the_formula_says():
    users, items, rows = 400, 40, 2000
    network = Fusion(nn.Linear(users + items, 1))
    batch = {"user": torch.randn(2, users).double(), "item": torch.randn(4, items).double()}
    split = rewritten(network, batch)
    one = {"user": torch.randn(1, users).double(), "item": torch.randn(rows, items).double()}
    before = flops(trace(network, ("user", "item")), network, PAIR.whole(one))
    after = flops(split.joint.graph, split.joint, one)
    assert before / after == pytest.approx(rows * (users + items) / (users + rows * items), rel=1e-12)
    assert before / after == pytest.approx(10.95, abs=0.005)


def test_the_bias_is_added_once_and_by_the_request():
    network = Fusion(nn.Linear(2 * WIDTH, 3))
    split = rewritten(network)
    assert [layer.bias is not None for layer in linears(split.request)] == [True]
    assert [layer.bias is not None for layer in linears(split.candidates)] == [False]
    assert difference(network, split, PAIR) <= 1e-12


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(2 * WIDTH), nn.Softmax(dim=1), nn.GroupNorm(2, 2 * WIDTH)],
    ids=["layer norm", "softmax", "group norm"],
)
def test_statistics_over_both_sides_are_refused_with_the_name_of_the_node(layer):
    with pytest.raises(NotSeparable) as error:
        rewritten(Fusion(nn.Identity(), layer, nn.Linear(2 * WIDTH, 1)))
    assert error.value.where == "node layers_1, layer layers.1" and error.value.found == type(layer).__name__


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(2 * WIDTH)], ids=["dropout", "batch norm"])
def test_layers_in_training_are_refused_and_split_when_they_are_not(layer):
    network = Fusion(layer, nn.Linear(2 * WIDTH, 1)).double()
    if isinstance(layer, nn.BatchNorm1d):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 1, 2)
    network.train()
    with pytest.raises(NotSeparable) as error:
        split_weights(network, split_batch(), PAIR)
    assert error.value.found == f"{type(layer).__name__} in training"
    split = rewritten(network)
    assert split.split and difference(network, split, PAIR) <= 1e-12


def test_a_normalisation_of_either_side_is_kept_on_its_side():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(2 * WIDTH, 1)

        def forward(self, batch):
            return self.last(torch.cat([self.norm(batch["item"]), torch.relu(self.norm(batch["user"]))], dim=1))

    network = Normed()
    split = rewritten(network)
    assert split.split == ("last",) and difference(network, split, PAIR) <= 1e-12


def test_rows_that_depend_on_each_other_are_refused():
    class Centred(Fusion):
        def forward(self, batch):
            return super().forward(
                {**batch, "user": batch["user"] - batch["item"].mean(dim=0) * batch["user"].sum(dim=0)}
            )

    network = Centred(nn.Linear(2 * WIDTH, 1))
    with pytest.raises(NotSeparable):
        rewritten(network)


def test_what_is_needed_whole_is_told():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.cross = nn.Linear(2 * WIDTH, 2 * WIDTH)

        def forward(self, batch):
            joined = torch.cat([batch["item"], batch["user"]], dim=1)
            return joined * self.cross(joined)

    network = Crossed()
    split = rewritten(network)
    assert split.whole == ("cat",) and split.split == ("cross",) and difference(network, split, PAIR) <= 1e-12


def test_a_table_that_both_sides_hash_into_at_once_is_the_candidates():
    class Hashed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = nn.Embedding(7, 3), nn.Linear(6, 1)

        def forward(self, batch):
            rows = self.table(torch.stack([batch["seen"], batch["asked"]], dim=1))  # one look-up of both sides' hashes
            return self.last(rows.flatten(1))

    sides = Sides(like="asked", rows="seen", tiled=frozenset({"seen"}))
    network = Hashed().double().eval()
    batch = {name: values for name, values in split_batch().items() if name in ("seen", "asked")}
    graph = trace(network, tuple(batch))
    found = colours(graph, sides, shapes_of(network, graph, sides.whole(sides.first(batch))))
    assert [found[node] for node in graph.nodes if node.target == "table"] == [CANDIDATE]
    split = split_weights(network, batch, sides, tolerance=1e-12)
    assert not linears(split.request)


def test_din_merges_its_difference_and_computes_either_side_once():
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.weigh = nn.Linear(4 * WIDTH, 6)

        def forward(self, batch):
            keys = batch["history"].unsqueeze(1)
            query = batch["item"].view(batch["history"].shape[0], -1, 1, WIDTH)
            keys, query = torch.broadcast_tensors(keys, query)
            weights = torch.tanh(self.weigh(torch.cat([query, keys, query - keys, query * keys], dim=3)))
            return (weights.sum(dim=3, keepdim=True) * keys).sum(dim=2).view(batch["item"].shape[0], -1)

    sides = Sides(like="item", rows="history", shared=frozenset({"history"}))
    network, length = Unit(), 7
    batch = {"history": torch.randn(3, length, WIDTH).double(), "item": torch.randn(12, WIDTH).double()}
    split = rewritten(network, batch, sides)
    assert [layer.in_features for layer in linears(split.request)] == [WIDTH]  # k, with its part of q - k
    assert sorted(layer.in_features for layer in linears(split.candidates)) == [WIDTH, WIDTH]  # q, and q * k
    weight = network.weigh.weight.view(6, 4, WIDTH)
    torch.testing.assert_close(linears(split.request)[0].weight, weight[:, 1] - weight[:, 2], rtol=0, atol=0)
    other = {"history": torch.randn(2, length, WIDTH).double(), "item": torch.randn(10, WIDTH).double()}
    with torch.no_grad():
        torch.testing.assert_close(split.score(split.encode(other), other), network(other), rtol=1e-12, atol=1e-12)
    before = flops(trace(network, tuple(other)), network, other)
    expected = np.array([2 * length, 10, 10 * length]) * WIDTH * 6 * 2  # k, q, q * k
    assert before == 10 * length * 4 * WIDTH * 6 * 2
    assert flops(split.joint.graph, split.joint, other) == expected.sum()
