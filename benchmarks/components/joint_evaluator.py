"""Does it pay to evaluate the candidate lists of a request jointly (FlashEvaluator)?

In the world ``short-video``, the items of a list compete for its clicks; in the twin, the clicks of an item do not
depend on the other items. For each request, a generator proposes twelve perturbed lists of five items. The value of
each is the world's expectation of its clicks, so the evaluators learn from true values of all lists.

Metric: ``share of the lead``. The *lead* of a list is its value minus the mean value of the request's lists. The metric
is the lead of the list with the highest score, divided by the largest lead, each summed over the requests. Arms:
``joint``; ``pointwise``, the deciding baseline, a sum over positions of pointwise values, learnt from the same lists
with the same loss; ``without attention across lists``, the joint network without this attention, and slightly wider to
compensate. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all
arms.

Result: the baseline wins. In this world, the list with the largest sum of *true* pointwise values has 99.7 % of the
best list's lead, so almost nothing depends on the list as a whole. The baseline also won with competition five and ten
times as strong (93 % and 78 % instead of 99.7 %), with three times as many requests, and with twice as many epochs, in
one seed each.

The exact part reports, by number of ``lists``, the cost of evaluating each list alone divided by that of one joint
pass: ``alone over joint`` in multiplications and ``alone over joint, time`` in measured time. It checks the number of
lists from which one pass is cheaper.

    python -m benchmarks.components --only joint_evaluator [--quick] [--json benchmarks/results/joint_evaluator.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.components.world_slates import public_features
from benchmarks.harness import Result, in_turn, median_ratio
from taiji.core.component import Requests, Slate
from taiji.models.rerank.joint_evaluator import (
    JointEvaluator,
    JointEvaluatorSettings,
    JointNetwork,
    JudgedLists,
    multiply_adds,
)
from taiji.models.rerank.list_generators import SampledLists
from taiji.world import World
from taiji.world.observation import Choice

Array = NDArray[Any]
LENGTH, LISTS, CANDIDATES = 5, 12, 20
Data = tuple[Array, JudgedLists, JudgedLists, JudgedLists]


def data(place: str, seed: int, quick: bool) -> Data:
    """Return the items' vectors, and the lists of training, validation and test requests with their true values."""
    world = World("short-video", seed, users=300, items=300, days=14, slate=LENGTH)
    if place == TWIN:
        world = world.twin("funnel.competition")
    random = np.random.default_rng(seed)
    wanted, warm, seen = 200 if quick else 800, 400, 0
    vectors = world.observation.public.text_topics
    generator = SampledLists(vectors, "mmr", 0.7, noise=0.5, seed=seed)
    parts: list[tuple[Array, ...]] = []
    while sum(len(part[0]) for part in parts) < wanted:
        asked = world.observation
        full = np.flatnonzero(asked.candidates.mask.sum(axis=1) >= CANDIDATES)
        if seen >= warm and len(full):
            asked_full = asked.take(full)
            items = asked_full.candidates.items[:, :CANDIDATES]
            features = public_features(world, asked_full, items)
            scores = features[..., 0] + features[..., 2]  # similarity to clicked titles, and the click rate
            lists = generator.propose(asked_full.requests, Slate(items, scores), LISTS, LENGTH)
            rows = np.arange(len(full))[:, None, None]
            worth = world.truth.list_values(asked_full, items[rows, lists])
            parts.append((asked_full.requests.user, asked_full.requests.time, items, scores, lists, worth))
        order = np.argsort(np.where(asked.candidates.mask, random.random(asked.candidates.items.shape), 2.0), axis=1)
        world.step(Choice(asked.candidates.take(order[:, :LENGTH]).items))
        seen += len(asked)
    user, time, items, scores, lists, worth = (np.concatenate(columns)[:wanted] for columns in zip(*parts))
    a, b = wanted // 2, wanted * 3 // 4
    cuts = [
        JudgedLists(Requests(user[s], time[s]), Slate(items[s], scores[s]), lists[s], worth[s])
        for s in (slice(0, a), slice(a, b), slice(b, wanted))
    ]
    return vectors, cuts[0], cuts[1], cuts[2]


def outcome(score: Any, validation: JudgedLists, test: JudgedLists, parameters: int) -> Outcome:
    """Return the share of the lead that is reached by choosing the list with the highest ``score``.

    ``score`` is a function from judged lists to scores (B, K).
    """

    def share(part: JudgedLists) -> float:
        chosen = part.rewards[np.arange(len(part.rewards)), score(part).argmax(axis=1)]
        average = part.rewards.mean(axis=1)
        return float((chosen - average).sum() / (part.rewards.max(axis=1) - average).sum())

    return Outcome(share(validation), {"share of the lead": share(test)}, parameters)


def joint(across: bool) -> Any:
    """Return the function that trains and tests the evaluator, with or without attention across lists."""

    def run(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
        vectors, fit, validation, test = slates
        settings = {
            "width": 16 if across else 18,
            "length": LENGTH,
            "across": across,
            "batch": 32,
            "epochs": 15,
            **configuration,
        }
        evaluator = JointEvaluator(JointEvaluatorSettings.model_validate(settings), vectors).fit(fit, seed=seed)
        size = sum(parameter.numel() for parameter in evaluator.network.parameters())
        return outcome(lambda part: evaluator.score(part.requests, part.slate, part.lists), validation, test, size)

    return run


def pointwise(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run the baseline: a sum over positions of the position's weight times the item's value.

    A network computes the value from the item's vector and score.
    """
    vectors, fit, validation, test = slates
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        worth = torch.nn.Sequential(
            torch.nn.Linear(vectors.shape[1] + 1, 70),
            torch.nn.GELU(),
            torch.nn.Linear(70, 70),
            torch.nn.GELU(),
            torch.nn.Linear(70, 1),
        ).double()
    places = torch.nn.Parameter(torch.ones(LENGTH, dtype=torch.float64))

    def score(part: JudgedLists) -> torch.Tensor:
        own = np.concatenate([vectors[part.slate.items], part.slate.scores[..., None]], axis=2)  # type: ignore[index]
        each = worth(torch.as_tensor(own)).squeeze(-1)
        return (each[torch.arange(len(each))[:, None, None], torch.as_tensor(part.lists)] * places).sum(dim=2)

    rewards = fit.rewards - fit.rewards.mean(axis=1, keepdims=True)
    law = torch.softmax(torch.as_tensor(rewards / rewards.std()), dim=1)
    optimiser = torch.optim.Adam([*worth.parameters(), places], lr=configuration["rate"])
    random = np.random.default_rng(seed)
    for _ in range(15):
        for rows in np.array_split(random.permutation(len(rewards)), max(1, len(rewards) // 32)):
            slate = Slate(fit.slate.items[rows], fit.slate.scores[rows])  # type: ignore[index]
            scores = score(JudgedLists(fit.requests.take(rows), slate, fit.lists[rows], fit.rewards[rows]))
            loss = -(law[torch.as_tensor(rows)] * torch.log_softmax(scores, dim=1)).sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    size = sum(parameter.numel() for parameter in worth.parameters()) + LENGTH
    with torch.no_grad():
        return outcome(lambda part: score(part).numpy(), validation, test, size)


def cost(result: Result, quick: bool) -> None:
    """Report the cost of evaluating each list alone divided by that of one joint pass, and the number of lists from
    which this ratio exceeds 1, in multiplications and in time."""
    sizes = {"candidates": 60, "length": 6, "history": 1000, "width": 64}

    def ratio(lists: int) -> float:
        return multiply_adds(lists, joint=False, **sizes) / multiply_adds(lists, joint=True, **sizes)

    settings = JointEvaluatorSettings(width=sizes["width"], length=sizes["length"])
    network = JointNetwork(sizes["width"], settings).eval()
    tried = (1, 2, 5, 10, 20, 50) if quick else (1, 2, 5, 10, 20, 50, 200)
    found = []
    for lists in tried:
        found.append(clocked(network, lists, 5 if quick else 31, **sizes))
        row = {"component": "joint_evaluator", "lists": lists, "alone over joint": ratio(lists)}
        result.rows.append({**row, "alone over joint, time": found[-1]})
    for lists in (1000, 5000):
        result.rows.append({"component": "joint_evaluator", "lists": lists, "alone over joint": ratio(lists)})
    crossing = next(lists for lists in range(1, 1000) if ratio(lists) > 1)
    past = next((place for place, value in enumerate(found) if value > 1), len(found) - 1)
    between = slice(max(past - 1, 0), past + 1)
    measured = float(np.exp(np.interp(0.0, np.log(found[between]), np.log(tried[between]))))
    row = {"component": "joint_evaluator", "metric": "lists from which one pass is cheaper, time", "value": measured}
    result.rows.append({**row, "formula": crossing})
    result.at_most(
        "joint_evaluator: number of lists from which one pass is cheaper, over candidates / length", crossing / 10, 1.5
    )
    if not quick:
        apart = max(measured / crossing, crossing / measured)
        result.at_most("joint_evaluator: factor between this number in time and in multiplications", apart, 3.0)


def clocked(
    network: JointNetwork, lists: int, repeats: int, *, candidates: int, length: int, history: int, width: int
) -> float:
    """Return the time of evaluating each list alone divided by that of one joint pass. In both cases the keys of the
    history are computed once."""
    random = torch.Generator().manual_seed(0)
    items, past = (torch.randn(1, n, f, generator=random) for n, f in ((candidates, width + 1), (history, width)))
    there, known = torch.ones(1, candidates, dtype=torch.bool), torch.ones(1, history, dtype=torch.bool)
    places = torch.stack([torch.randperm(candidates, generator=random)[:length] for _ in range(lists)])

    def alone() -> torch.Tensor:
        encoded = network.item(items[0, places])
        encoded = network.among(encoded, encoded).reshape(1, lists * length, width)
        encoded = network.history(encoded, network.past(past)).view(lists, length, width)
        ordered = torch.cat([network.whole.expand(lists, 1, -1), encoded + network.position[:length]], dim=1)
        ordered = network.inside(ordered, ordered)
        ordered = ordered + network.mix(ordered)
        judged: torch.Tensor = network.worth(ordered.mean(dim=1) + ordered[:, 0])
        return judged

    with torch.inference_mode():
        apart, joint = in_turn(
            alone, lambda: network(items, there, past, known, places[None]), repeats=repeats, warmup=3
        )
    return median_ratio(apart, joint)


COMPONENT = Component(
    claim="evaluating whole lists jointly chooses better lists than a sum of pointwise values",
    metric="share of the lead",
    arms={
        "joint": Arm(joint(True), ({"rate": 0.002}, {"rate": 0.006})),
        "pointwise": Arm(pointwise, ({"rate": 0.002}, {"rate": 0.006})),
        "without attention across lists": Arm(joint(False), ({"rate": 0.002}, {"rate": 0.006})),
    },
    data=data,
    exact=cost,
)
