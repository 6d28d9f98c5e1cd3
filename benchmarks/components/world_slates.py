"""Slates of a simulated world with predictions of a linear model of public information, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.world import World
from taiji.world.mechanisms.content import Content
from taiji.world.observation import Choice, Observation

Array = NDArray[Any]


@dataclass(frozen=True)
class Slates:
    """Slates of one world, and the truth with which scores are compared, (B, M) each.

    Attributes:
        rows: inputs of the fusions.
        truth: expectations by name.
    """

    rows: FusionRows
    truth: dict[str, Array]

    def take(self, at: slice) -> Slates:
        """Return the slates of a slice."""
        return Slates(self.rows.take(at), {name: values[at] for name, values in self.truth.items()})


def public_features(world: World, observation: Observation, items: Array) -> Array:
    """Return public features (B, M, F) of items (B, M).

    These are the similarity to clicked titles, alone and times log(1 + the user's clicks); the click rate and its log;
    log duration and its square; and the item's kind.
    """
    content, public = world.find(Content), observation.public
    profile, text = public.profile[observation.requests.user], public.text_topics[items]
    size = np.linalg.norm(profile, axis=1, keepdims=True)[..., None] * np.linalg.norm(text, axis=2, keepdims=True)
    near = (profile[:, None] * text).sum(axis=2, keepdims=True) / np.where(size > 0, size, 1.0)
    seen = public.exposures[items][..., None]
    rate = (public.clicks[items][..., None] + 1) / (seen + 10)
    duration = np.log(content.duration[items])[..., None]
    known = np.log1p(public.clicked[observation.requests.user])[:, None, None] * near
    kinds = (content.kind[items][..., None] == np.arange(int(content.kind.max()) + 1)).astype(float)
    return np.concatenate([near, known, rate, np.log(rate), duration, duration**2, kinds], axis=2)


def collect(world: World, slates: int, warm: int, seed: int) -> tuple[Slates, Slates, Slates]:
    """Return training, validation and test slates of a random policy.

    The first ``warm`` slates are not returned; the predictors are fitted to the second half of them. ``click`` and
    ``watch`` are predicted by ridge regressions on :func:`public_features`. The seconds of viewed items are predicted
    on the log scale.
    """
    random = np.random.default_rng(seed)
    content = world.find(Content)
    parts: list[dict[str, Array]] = []
    count = 0
    while count < warm + slates:
        seen = world.observation
        order = np.argsort(np.where(seen.candidates.mask, random.random(seen.candidates.items.shape), 2.0), axis=1)
        items = seen.candidates.take(order[:, : world.scenario.slate]).items
        features = public_features(world, seen, np.maximum(items, 0))
        found = world.step(Choice(items))
        full = (found.items >= 0).all(axis=1)
        part = {"features": features, "user": seen.requests.user, "time": seen.requests.time, "items": items}
        part |= {"click": found.outcome["click"], "view": found.outcome["view"], "watch": found.outcome["watch"]}
        part |= {"duration": content.duration[items], "kind": content.kind[items]}
        part |= {f"true {n}": found.expected[n] for n in ("click", "watch", "unbiased_interest")}
        parts.append({name: values[full] for name, values in part.items()})
        count += int(full.sum())
    all_of = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    learn = slice(warm // 2, warm)
    x = all_of["features"][learn].reshape(-1, all_of["features"].shape[2])
    viewed = all_of["view"][learn].ravel() == 1
    click = ridge(x[viewed], all_of["click"][learn].ravel()[viewed])
    seconds = ridge(x[viewed], np.log1p(all_of["watch"][learn].ravel()[viewed]))
    rest = {name: values[warm : warm + slates] for name, values in all_of.items()}
    predictions = {"click": click(rest["features"]), "watch": np.expm1(seconds(rest["features"]))}
    requests = Requests(rest["user"], rest["time"], {"duration": rest["duration"], "kind": rest["kind"]})
    rows = FusionRows(requests, predictions, {"click": rest["click"], "watch": rest["watch"]})
    whole = Slates(rows, {n.removeprefix("true "): v for n, v in rest.items() if n.startswith("true ")})
    third = slates // 3
    return whole.take(slice(0, third)), whole.take(slice(third, 2 * third)), whole.take(slice(2 * third, slates))


def ridge(x: Array, y: Array, penalty: float = 10.0) -> Any:
    """Return a function that predicts y from features (…, F), fitted by ridge regression."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    scaled = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], axis=1)
    weights = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(scaled.shape[1]), scaled.T @ y)
    return lambda z: ((z - mean) / spread) @ weights[:-1] + weights[-1]


def within_slates(scores: Array, truth: Array) -> float:
    """Return the mean over slates of Spearman's correlation between scores (B, M) and the truth."""
    first, second = (np.argsort(np.argsort(x, axis=1), axis=1) - (x.shape[1] - 1) / 2 for x in (scores, truth))
    return float(((first * second).sum(axis=1) / (first**2).sum(axis=1)).mean())
