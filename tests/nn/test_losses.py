import numpy as np
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.data.tasks import CLICK, CONVERSION, Task, check_tasks
from taiji.nn.losses import MultitaskLoss, known_mean, pairwise_loss, thresholds
from taiji.nn.predictions import predictions


def weighted(weight):
    return CLICK, CONVERSION.model_copy(update={"weight": weight})


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), weight=st.sampled_from([0.0, 0.5, 2.0]))
def test_equals_the_written_out_loss(seed, weight):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, 30)) * 3
    click = random.integers(0, 2, 30).astype(float)
    ctcvr = click * random.integers(0, 2, 30)
    ctcvr[random.random(30) < 0.3] = np.nan
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    known = np.isfinite(ctcvr)
    expected = -np.mean(click * np.log(p) + (1 - click) * np.log(1 - p))
    product, label = (p * q)[known], ctcvr[known]
    expected += weight * -np.mean(label * np.log(product) + (1 - label) * np.log(1 - product))
    outputs = torch.tensor(np.stack([a, b], axis=1))
    got = MultitaskLoss(weighted(weight))(outputs, {"click": torch.tensor(click), "ctcvr": torch.tensor(ctcvr)})
    assert abs(float(got) - expected) < 1e-9


@hypothesis_settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_chain_of_three_learns_from_the_product_of_three(seed):
    random = np.random.default_rng(seed)
    tasks = check_tasks([CLICK, Task(name="cart", given="click"), Task(name="buy", given="cart")])
    outputs = random.normal(size=(20, 3)) * 2
    happened = np.cumprod(random.integers(0, 2, (20, 3)), axis=1).astype(float)
    p = np.cumprod(1 / (1 + np.exp(-outputs)), axis=1)
    expected = -np.mean(happened * np.log(p) + (1 - happened) * np.log(1 - p), axis=0).sum()
    labels = dict(zip(("click", "click_cart", "cart_buy"), map(torch.tensor, happened.T)))
    assert abs(float(MultitaskLoss(tasks)(torch.tensor(outputs), labels)) - expected) < 1e-9
    found = predictions(outputs, tasks, {})
    np.testing.assert_allclose(found["cart_buy"], p[:, 2], rtol=1e-12)


def test_extreme_logits_stay_finite_and_unknown_rows_get_no_gradient():
    outputs = torch.tensor([[60.0, 60.0], [-60.0, 60.0], [60.0, -60.0]], requires_grad=True)
    labels = {"click": torch.tensor([0.0, 1.0, 1.0]), "ctcvr": torch.tensor([0.0, torch.nan, 1.0])}
    loss = MultitaskLoss(weighted(1.0))(outputs, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(outputs.grad).all() and outputs.grad[1, 1] == 0
    unknown = {name: torch.full((3,), torch.nan) for name in labels}
    assert torch.isfinite(MultitaskLoss(weighted(1.0))(outputs, unknown))


def test_other_kinds_equal_their_written_out_losses():
    random = np.random.default_rng(0)
    z = torch.tensor(random.normal(size=(40, 1)))
    count = torch.tensor(random.poisson(2.0, 40).astype(float))
    count[::7] = torch.nan
    known = torch.isfinite(count)
    got = MultitaskLoss((Task(name="n", kind="count"),))(z, {"n": count})
    exact = -torch.distributions.Poisson(z[known, 0].exp()).log_prob(count[known]) - torch.lgamma(count[known] + 1)
    torch.testing.assert_close(got, exact.mean())
    seconds = torch.tensor(random.exponential(30.0, 40))
    got = MultitaskLoss((Task(name="s", kind="duration"),))(z, {"s": seconds})
    torch.testing.assert_close(got, 0.5 * (z[:, 0] - torch.log(1 + seconds)).square().mean())


def test_grades_are_a_proper_distribution_and_their_loss_is_its_cross_entropies():
    random = np.random.default_rng(1)
    task = Task(name="stars", kind="ordinal", levels=5)
    outputs = torch.tensor(random.normal(size=(30, 4)))
    over = torch.sigmoid(thresholds(outputs))
    assert (over.diff(dim=1) <= 0).all(), "a higher grade is never likelier than a lower bar"
    stars = torch.tensor(random.integers(0, 5, 30).astype(float))
    above = (stars[:, None] > torch.arange(4)).double()
    expected = -(above * over.log() + (1 - above) * (1 - over).log()).sum(dim=1).mean()
    torch.testing.assert_close(MultitaskLoss((task,))(outputs, {"stars": stars}), expected)
    mass = torch.cat([torch.ones(30, 1), over], dim=1) - torch.cat([over, torch.zeros(30, 1)], dim=1)
    expectation = (mass * torch.arange(5)).sum(dim=1).numpy()
    np.testing.assert_allclose(predictions(outputs.numpy(), (task,), {})["stars"], expectation, rtol=1e-12)


def test_pairs_are_of_one_request_and_of_different_labels():
    random = np.random.default_rng(2)
    scores, label = torch.tensor(random.normal(size=12)), torch.tensor(random.integers(0, 3, 12).astype(float))
    group, known = torch.tensor(random.integers(0, 3, 12)), torch.ones(12, dtype=torch.float64)
    known[3] = 0
    terms = [
        np.log1p(np.exp(float(scores[j] - scores[i])))
        for i in range(12)
        for j in range(12)
        if group[i] == group[j] and label[i] > label[j] and known[i] and known[j]
    ]
    assert abs(float(pairwise_loss(scores, label, known, group)) - np.mean(terms)) < 1e-12


def test_one_answered_row_does_not_weigh_as_much_as_all_others():
    tasks = check_tasks([CLICK, Task(name="satisfied", kind="survey")])
    clicks, answers = torch.zeros(512, dtype=torch.float64), torch.full((512,), torch.nan, dtype=torch.float64)
    answers[7] = 1.0
    outputs = torch.zeros((512, 2), dtype=torch.float64, requires_grad=True)
    MultitaskLoss(tasks)(outputs, {"click": clicks, "satisfied": answers}).backward()
    assert outputs.grad is not None
    ordinary = outputs.grad[0, 0].abs()
    torch.testing.assert_close(outputs.grad[7, 1].abs() / ordinary, torch.tensor(16.0, dtype=torch.float64))
    answers[:32] = 1.0  # one in sixteen: from here on it is the mean over the known rows
    several = MultitaskLoss(tasks)(outputs, {"click": clicks, "satisfied": answers})
    torch.testing.assert_close(several, torch.tensor(2 * np.log(2.0), dtype=torch.float64))


@hypothesis_settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_the_mean_of_what_is_known_is_the_mean_unless_little_is(seed, share):
    random = np.random.default_rng(seed)
    terms, known = torch.tensor(random.random(64)), torch.tensor((random.random(64) < share).astype(float))
    got, count = float(known_mean(terms, known)), float(known.sum())
    assert abs(got - float((terms * known).sum()) / max(count, 4)) < 1e-12
