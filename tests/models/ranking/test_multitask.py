import numpy as np
import pytest
import torch
from tests.models.ranking.conftest import exposures_of as rows_of

from taiji.data.tasks import Task
from taiji.models.ranking.multitask import (
    ESMMRanker,
    GatedMixture,
    MMoERanker,
    PLERanker,
)
from taiji.models.ranking.ranker import Ranker
from taiji.testing import check_learns_checkerboard, check_scorer, checkerboard, exposures_of

RANKERS = [MMoERanker, PLERanker, ESMMRanker]
TASKS = (
    Task(name="click"),
    Task(name="cart", given="click"),
    Task(name="buy", given="cart"),
    Task(name="stars", kind="ordinal", levels=4),
    Task(name="watch", kind="duration"),
)
SMALL = {"hidden": (6,), "task_hidden": (4,), "min_steps": 10, "device": "cpu", "history": 4, "dropout": 0.0}


def small(kind, shop, tasks=TASKS, **settings):
    """A fresh ranker of any tasks, its network in float64, and a batch."""
    torch.manual_seed(0)
    frame = rows_of(shop).head(40)
    made = kind(kind.Settings(**{**SMALL, **settings}))
    fields = made.fields(shop, frame.columns)
    from taiji.data.field_set import FieldSet

    made.build(shop, FieldSet(fields).fit(shop, frame, int(frame["time"].max()) + 1), tasks)
    made.network.double()
    batch = made.inputs.batch(made.inputs.arrays(frame), slice(None))
    return made, {n: v.double() if v.is_floating_point() else v for n, v in batch.items()}


def test_gates_add_up_to_one():
    torch.manual_seed(0)
    gate, inputs = GatedMixture(5, 4).double(), torch.randn(7, 5).double()
    experts = [torch.randn(7, 3).double() for _ in range(4)]
    weights = gate.weights(inputs)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(7).double(), rtol=0, atol=1e-15)
    expected = sum(weights[:, [n]] * expert for n, expert in enumerate(experts))
    torch.testing.assert_close(gate(inputs, experts), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(gate(inputs, [experts[0]] * 4), experts[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", RANKERS)
def test_any_tasks_have_an_output_each_and_a_joint_probability_is_the_product(kind, shop):
    ranker, batch = small(kind, shop)
    ranker.network.eval()
    with torch.no_grad():
        outputs = ranker.network(batch)
    assert outputs.shape == (40, 3 + 3 + 1)
    from taiji.nn.predictions import decode

    found = decode(outputs, ranker.tasks, ranker.calibration)
    torch.testing.assert_close(found["click_cart"], found["click"] * found["cart"], rtol=1e-14, atol=0)
    torch.testing.assert_close(found["cart_buy"], found["click"] * found["cart"] * found["buy"], rtol=1e-14, atol=0)


def test_esmm_learns_a_conditional_task_from_the_product_over_all_exposures(shop):
    ranker, batch = small(ESMMRanker, shop, TASKS[:2])
    outputs = ranker.network(batch)
    label = (torch.arange(40) % 3 == 0).double()
    unknown = torch.full((40,), torch.nan).double()
    loss = ranker.loss(outputs, {"click": unknown, "click_cart": label})
    both = torch.sigmoid(outputs[:, 0]) * torch.sigmoid(outputs[:, 1])
    expected = -(label * both.log() + (1 - label) * (1 - both).log()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def gradients_of_one_task(ranker, batch, task):
    ranker.network.zero_grad()
    ranker.network(batch)[:, task].sum().backward()
    return lambda module: sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_a_task_of_ple_does_not_reach_the_experts_of_another(shop):
    ranker, batch = small(PLERanker, shop, TASKS[:2], levels=1)
    (extraction,) = ranker.network.extractions
    reach = gradients_of_one_task(ranker, batch, 0)
    assert reach(extraction.own[1]) == reach(extraction.gates[1]) == reach(ranker.network.towers[1]) == 0
    assert min(reach(extraction.own[0]), reach(extraction.shared), reach(extraction.gates[0])) > 0
    assert extraction.shared_gate is None


def test_of_two_levels_the_last_is_isolated_and_the_first_is_reached_through_the_shared_gate(shop):
    ranker, batch = small(PLERanker, shop, TASKS[:2], levels=2)
    first, last = ranker.network.extractions
    reach = gradients_of_one_task(ranker, batch, 0)
    assert reach(last.own[1]) == reach(last.gates[1]) == reach(first.gates[1]) == 0
    assert reach(first.own[1]) > 0 and reach(first.shared_gate) > 0


def test_towers_of_esmm_share_nothing_but_the_inputs(shop):
    ranker, batch = small(ESMMRanker, shop, TASKS[:2])
    reach = gradients_of_one_task(ranker, batch, 1)
    assert reach(ranker.network.bodies[0]) == 0 and reach(ranker.network.bodies[1]) > 0
    assert reach(ranker.network.inputs) > 0


@pytest.mark.parametrize("kind", RANKERS)
def test_it_keeps_the_contract_and_learns(kind, tmp_path):
    board = checkerboard()
    settings = kind.Settings(min_steps=200, hidden=(16,), task_hidden=(8,), device="cpu")
    ranker = kind(settings).fit(board, exposures_of(board), seed=0)
    check_scorer(ranker, board)
    check_learns_checkerboard(ranker, board)
    ranker.save(tmp_path / "ranker")
    again = Ranker.load(tmp_path / "ranker", board)
    assert type(again) is kind and again.version == ranker.version
    frame = exposures_of(board).head(20)
    np.testing.assert_array_equal(again.predict(frame)["click"].to_numpy(), ranker.predict(frame)["click"].to_numpy())
