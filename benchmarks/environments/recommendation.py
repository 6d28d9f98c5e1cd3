"""Real recommendation data for `benchmarks.pareto`: a softmax policy over the candidate items of each user.

The data are MovieLens (ml-latest-small, in the folder that TAIJI_TEST_DATA names). The policy scores candidate i of
example x by theta . (u_x * e_i, log popularity). Here, e_i is the embedding of the item, and u_x is the mean embedding
of the latest 20 items before the example. The two rewards are those by which Taiji aligns a language model: the cosine
to the true next item (``E[semantic]``), and the normalised CTCVR predicted by a ranker that is trained on the first
part of the log (the reward period). The policy is evaluated on later examples, by the rank of the true item and by the
CTCVR predicted by another ranker, which is trained on a later part (the ranker period; ``E[judged CTCVR]``). The value
of a language model is not measured here, but in the report of a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.environments.figures import Chart, save
from benchmarks.environments.language import distance_to_front
from benchmarks.harness import Result
from taiji.alignment.front import hypervolume
from taiji.alignment.settings import Weighting
from taiji.nn.weighting_rules import Observation, RuleOptions, make_rule

RULES = tuple(name for name in get_args(Weighting) if name not in ("fixed", "gdpo"))
"""Weighting rules that are compared with fixed weights."""


@dataclass
class World:
    """E examples with up to C candidates each, padded.

    Attributes:
        features: (E, C, d) features of the candidates.
        rewards: (2, E, C) rewards of the candidates.
        target: (E,) position of the true next item among the candidates.
        mask: (E, C), False for padding.
    """

    features: np.ndarray
    rewards: np.ndarray
    target: np.ndarray
    mask: np.ndarray

    def policy(self, theta: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        logits = np.where(self.mask[chosen], self.features[chosen] @ theta, -np.inf)
        e = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(e / e.sum(1, keepdims=True))


def measure(result: Result, quick: bool, interval: Callable[[Any], dict[str, float]], figures: Path) -> None:
    """Train under each rule and with 11 pairs of fixed weights, and add rows and checks from held-out examples.

    Columns: the mean rewards (``E[semantic]``, ``E[judged CTCVR]``), hit@10 and MRR of the true item after training;
    ``worst gain``, the smaller of the gains of the two rewards over the uniform policy, with its interval over seeds;
    ``w1 at the end``, the final weight of the first reward. Further rows compare the end point of each rule with the
    front of the fixed weights.
    """
    folder = Path(os.environ.get("TAIJI_TEST_DATA", "")) / "ml-latest-small"
    if not os.environ.get("TAIJI_TEST_DATA") or not folder.is_dir():
        result.rows.append(
            {
                "environment": "ml-latest-small",
                "rule": "left out: TAIJI_TEST_DATA does not name a folder that contains it",
            }
        )
        return
    train, test = worlds(folder, 60 if quick else None, 60 if quick else 400)
    seeds, steps = (range(1), 60) if quick else (range(5), 600)
    sweep = np.linspace(0, 1, 3 if quick else 11)
    ends: dict[str, np.ndarray] = {}
    for name, fixed in [
        *((f"fixed {w:.1f}", (w, 1 - w)) for w in sweep),
        *((rule, None) for rule in (RULES[:2] if quick else RULES)),
    ]:
        runs = [learn(train, name if fixed is None else "fixed", fixed, steps, seed) for seed in seeds]
        figures_of = np.array([judge(test, theta) for theta, _ in runs])
        ends[name] = figures_of[:, :2]
        start = judge(test, np.zeros(train.features.shape[2]))
        row = {"environment": "ml-latest-small", "rule": name}
        for place, metric in enumerate(("E[semantic]", "E[judged CTCVR]", "hit@10", "MRR")):
            row[metric] = figures_of[:, place].mean()
        gain = (figures_of[:, :2] - start[:2]).min(1)
        result.rows.append(
            {
                **row,
                "worst gain": interval(gain)["value"],
                "low": interval(gain)["low"],
                "high": interval(gain)["high"],
                "w1 at the end": float(np.mean([w[0] for _, w in runs])),
            }
        )
    start = judge(test, np.zeros(train.features.shape[2]))
    result.rows.append(
        {
            "environment": "ml-latest-small",
            "rule": "start (uniform policy)",
            "E[semantic]": start[0],
            "E[judged CTCVR]": start[1],
            "hit@10": start[2],
            "MRR": start[3],
        }
    )
    fixed_names = [name for name in ends if name.startswith("fixed")]
    worst = min(fixed_names, key=lambda name: (ends[name] - start[:2]).min(1).mean())
    difference = (ends["popo"] - start[:2]).min(1) - (ends[worst] - start[:2]).min(1)
    result.at_least(
        f"ml-latest-small: POPO's worst gain minus that of the worst fixed weights ({worst}), mean",
        float(difference.mean()),
        0.0,
    )
    if quick:
        return
    front = np.array([ends[name].mean(0) for name in fixed_names])
    reference = (float(start[0]), float(start[1]))
    for name in RULES:
        point = ends[name].mean(0)
        result.rows.append(
            {
                "environment": "ml-latest-small",
                "rule": name,
                "hypervolume of the point / sweep's": hypervolume(point[None], reference)
                / max(hypervolume(front, reference), 1e-12),
                "distance to front": distance_to_front(point, front),
            }
        )
    chart = Chart("ml-latest-small, held-out: end points", "E[semantic]", "E[judged CTCVR], normalised")
    chart.points.append(("fixed sweep", *front.T))
    for name in RULES:
        chart.points.append((name, *ends[name].mean(0)[:, None]))
    save(figures / "pareto-recommendation.svg", [chart], columns=1)


def learn(
    world: World, name: str, fixed: tuple[float, float] | None, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train as in GRPO, and return the parameters and the last weights.

    A step has 16 examples with 4 sampled items each. Advantages are differences from the group mean, without division
    by the standard deviation. Each loss contains 0.02 times the KL divergence from the uniform policy.

    Args:
        world: training examples.
        name: weighting rule; ignored with fixed weights.
        fixed: fixed weights, or None.
        steps: number of steps.
        seed: seed of all random draws.
    """
    rng = np.random.default_rng([seed, 31])
    theta, beta, group = np.zeros(world.features.shape[2]), 0.02, 4
    rule = make_rule("popo" if fixed else name, 2, RuleOptions(seed=seed))
    weights = np.asarray(fixed) if fixed else rule.weights
    for _ in range(steps):
        chosen = rng.integers(0, len(world.features), 16)
        pi = world.policy(theta, chosen)
        picked = (pi.cumsum(1)[:, None, :] < rng.random((16, group, 1))).sum(2).clip(max=pi.shape[1] - 1)
        rewards = np.stack([world.rewards[k, chosen[:, None], picked] for k in range(2)])
        advantage = rewards - rewards.mean(2, keepdims=True)
        logratio = np.where(
            world.mask[chosen], np.log(np.maximum(pi, 1e-30) * world.mask[chosen].sum(1, keepdims=True)), 0.0
        )
        kl = beta * pi * (logratio - (pi * logratio).sum(1, keepdims=True))
        by_logit = np.repeat(kl[None], 2, 0)
        for k in range(2):
            np.add.at(by_logit[k], (np.arange(16)[:, None], picked), -advantage[k] / group)
            by_logit[k] += pi * advantage[k].sum(1, keepdims=True) / group
        halves = np.stack(
            [np.einsum("kbc,bcd->kd", by_logit[:, h::2], world.features[chosen[h::2]]) / 8 for h in (0, 1)]
        )
        whole = halves.mean(0)
        if fixed is None:
            before = rule.weights
            if rule.source == "gradients":
                cross = (halves[0] @ halves[1].T + halves[1] @ halves[0].T) / 2
                rule.observe(
                    Observation(
                        gram=cross if name == "popo" else whole @ whole.T, square_norm=float((whole**2).sum(1).mean())
                    )
                )
            elif rule.source == "rewards":
                rule.observe(Observation(rewards=rewards.reshape(2, -1).T, group=group))
            weights = rule.weights if rule.fresh else before
        theta = theta - 4.0 * weights @ whole
    return theta, weights


def judge(world: World, theta: np.ndarray) -> np.ndarray:
    """Return the mean rewards, and hit@10 and mean reciprocal rank of the true item; in ranks, ties count half."""
    every = np.arange(len(world.features))
    pi = world.policy(theta, every)
    expected = (pi[None] * world.rewards).sum(2).mean(1)
    own = pi[every, world.target][:, None]
    rank = 1 + ((pi > own) & world.mask).sum(1) + (((pi == own) & world.mask).sum(1) - 1) / 2
    return np.array([*expected, (rank <= 10).mean(), (1 / rank).mean()])


def worlds(folder: Path, users: int | None, limit: int) -> tuple[World, World]:
    """Load and split the data, train both rankers, and return the training and the test examples."""
    from taiji.alignment.reward_table import build_reward_table
    from taiji.alignment.settings import RewardTableSettings
    from taiji.data.examples import make_examples
    from taiji.data.loading import load_dataset
    from taiji.data.settings import DataSettings, ExampleSettings
    from taiji.data.splits import exposures, time_split
    from taiji.language.embed import load_embedder
    from taiji.models.ranking import train_ranker

    dataset = load_dataset(DataSettings(source=str(folder), users=users), 0)
    split, embedder = time_split(dataset), load_embedder("wordllama")
    built = []
    for period, teacher in (("llm", "reward"), ("test", "ranker")):
        ranker = train_ranker(dataset, exposures(dataset, split, teacher), seed=len(built))
        examples = make_examples(dataset, split, period, ExampleSettings(limit=limit, per_user=8), 0)
        environment = build_reward_table(
            dataset,
            split,
            examples,
            ranker,
            embedder,
            RewardTableSettings(exposed_candidates=32, popular_candidates=60, random_candidates=60),
            0,
        )
        built.append(_world(dataset, examples, environment, split.interval("llm")[0]))
    return built[0], built[1]


def _world(dataset: Any, examples: Any, environment: Any, until: int) -> World:
    candidates, _, preference = environment._padded
    mask = candidates >= 0
    vectors = environment.vectors[candidates]
    embedded = dict(zip(environment.item_ids.tolist(), environment.vectors))
    items, _ = dataset.history.before_batch(examples["user"].to_numpy(), examples["as_of"].to_numpy(), 20)
    dimension = environment.vectors.shape[1]
    user = np.stack(
        [np.mean([embedded[i] for i in row if i in embedded] or [np.zeros(dimension)], 0) for row in items.tolist()]
    )
    user /= np.maximum(np.linalg.norm(user, axis=1, keepdims=True), 1e-9)
    counts = np.bincount(dataset.history.items[dataset.history.times < until], minlength=dataset.n_items)
    popularity = np.log1p(counts[environment.item_ids])[candidates] / 5
    features = np.concatenate([user[:, None, :] * vectors * np.sqrt(dimension), popularity[:, :, None]], 2)
    targets = environment.target_vectors(examples["example"].to_list())
    semantic = np.clip(np.einsum("ecd,ed->ec", vectors, targets), 0, 1)
    places = environment.item_ids[candidates] == examples["target"].to_numpy()[:, None]
    return World(
        features * mask[:, :, None],
        np.stack([np.where(mask, semantic, 0.0), np.where(mask, preference, 0.0)]),
        (places & mask).argmax(1),
        mask,
    )
