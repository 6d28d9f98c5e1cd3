"""Behaviour cloning of the actions shown to returning users, by tiers of users (SEC, arXiv 2504.05628).

Users are divided into tiers by their number of active days. A shared encoder reads the state of a request, and each
tier has a head that imitates the actions shown to the users of this tier. A request uses the head of the tier whose
encoded states are nearest, but never a tier below the user's own and (our addition) at most one tier above it. Users
who return for reasons unrelated to the actions reach high tiers as well. If most users are of this kind, cloning learns
nothing useful.
"""

from __future__ import annotations

from typing import Any, Self

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional

from taiji.core.component import Device, pick_device
from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.models.learnt_component import LearntComponent

Array = NDArray[Any]


def retention_tiers(active_days: Array, tiers: int) -> Array:
    """Return tiers (U,) from 0, the least active, by quantiles of active days (U,).

    Users with the same number of days share a tier, so there may be fewer than ``tiers`` tiers. No tier is empty.
    """
    edges = np.quantile(active_days, np.arange(1, tiers) / tiers)
    return np.unique(np.searchsorted(edges, active_days, side="right"), return_inverse=True)[1]


def nuclear_norm(actions: torch.Tensor) -> torch.Tensor:
    """Return the sum of the singular values of a matrix of actions (B, A), whose rows are first scaled to length 1.

    The sum is √B if all actions are the same, and √(B · min(B, A)) if they are spread evenly over as many directions as
    possible.
    """
    return torch.linalg.matrix_norm(functional.normalize(actions, dim=-1), ord="nuc")


def cloning_loss(actions: torch.Tensor, shown: torch.Tensor, diversity: float) -> torch.Tensor:
    """Return the imitation loss minus ``diversity`` times the diversity of a batch of actions.

    The imitation loss is the mean of 1 − cosine between the actions and the shown actions, (B, A) each. The diversity
    is the nuclear norm of the actions as a share of its largest possible value.
    """
    imitation = (1 - functional.cosine_similarity(actions, shown, dim=-1)).mean()
    if not diversity:
        return imitation
    rows, width = actions.shape
    return imitation - diversity * nuclear_norm(actions) / (rows * min(rows, width)) ** 0.5


def permitted_tier(distances: Array, level: Array) -> Array:
    """Return each request's tier (n,): the nearer of the user's own tier and the tier above it.

    Args:
        distances: (n, K) distance of each request from each tier.
        level: (n,) tiers of the users.
    """
    tier = np.arange(distances.shape[1])
    inside = (tier >= level[:, None]) & (tier <= level[:, None] + 1)
    return np.asarray(np.where(inside, distances, np.inf).argmin(axis=1))


class ExpertCloningSettings(Base):
    """Settings of :class:`ExpertCloning`."""

    tiers: PositiveInt = 3
    """Number of tiers of users; 1 clones all users alike."""
    hidden: PositiveInt = 64
    """Width of the encoder's hidden layer."""
    width: PositiveInt = 16
    """Width of an encoded state."""
    centroids: PositiveInt = 4
    """Largest number of clusters of states per tier. The distance of a state from a tier is its distance to the nearest
    centroid of the tier."""
    diversity: float = Field(default=0.05, ge=0)
    """Weight μ of the diversity of actions in a batch; 0 is plain behaviour cloning."""
    batch: PositiveInt = 256
    """Number of requests per step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate of AdamW."""
    epochs: PositiveInt = 20
    """Number of passes over the requests."""
    device: Device = "auto"
    """Device for training: `cpu`, `cuda`, or `auto`."""


class CloningNetwork(nn.Module):
    """Shared encoder of states (B, S) with one head per tier that gives actions (B, A)."""

    def __init__(self, states: int, actions: int, settings: ExpertCloningSettings) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(states, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, settings.width)
        )
        self.heads = nn.ModuleList(nn.Linear(settings.width, actions) for _ in range(settings.tiers))

    def forward(self, states: torch.Tensor, tier: torch.Tensor) -> torch.Tensor:
        """Return actions (B, A) of length 1, each from the head of its tier (B,)."""
        encoded = functional.relu(self.encoder(states))
        each = torch.stack([head(encoded) for head in self.heads], dim=1)
        return functional.normalize(each[torch.arange(len(states), device=states.device), tier], dim=-1)


class ExpertCloning(LearntComponent):
    """Policy that imitates the actions shown in similar states to users of a tier. Actions are vectors of length 1."""

    Settings = ExpertCloningSettings
    settings: ExpertCloningSettings

    def fit(self, states: Array, actions: Array, tier: Array, *, seed: int = 0, device: str | None = None) -> Self:
        """Clone logged actions.

        Args:
            states: (n, S) states known at the request. They must not reveal when the user returned afterwards.
            actions: (n, A) logged actions, such as the mean vector of the shown items.
            tier: (n,) tier of the user, from :func:`retention_tiers`.
            seed: random seed of training.

        Raises:
            InputError: a tier has no requests or is out of range.
        """
        s, tier = self.settings, np.asarray(tier, dtype=np.int64)
        own, rows = np.unique(tier, return_counts=True)
        if own.tolist() != list(range(s.tiers)):
            raise InputError(
                "Expert cloning cannot learn from these requests.",
                where="tier",
                expected=f"requests of users of each of the tiers 0 to {s.tiers - 1}",
                found=f"requests by tier: {dict(zip(own.tolist(), rows.tolist()))}",
                fix="set tiers to the number of tiers in the log; users with equally many active days share one",
            )
        self.centre, self.scale = states.mean(axis=0), np.maximum(states.std(axis=0), 1e-9)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(states.shape[1], actions.shape[1], device)
            self._train(
                self._told(states), torch.from_numpy(np.asarray(actions, np.float32)), torch.from_numpy(tier), seed
            )
        encoded = self._encoded(states)
        found = [self._centroids(encoded[tier == own], seed) for own in range(s.tiers)]
        self.centroids = np.concatenate(found)
        self.owners = np.repeat(np.arange(s.tiers), [len(part) for part in found])
        return self

    def tiers(self, states: Array, level: Array) -> Array:
        """Return the tier (n,) whose head acts in each state: the user's own tier, or the tier above it.

        Args:
            states: (n, S) states of the requests.
            level: (n,) tiers of the users.

        Raises:
            InputError: a level is out of range.
        """
        level = np.asarray(level, dtype=np.int64)
        if ((level < 0) | (level >= self.settings.tiers)).any():
            raise InputError(
                "The tier of a user is out of range.",
                where="level",
                expected=f"0 to {self.settings.tiers - 1}",
                found=f"{level.min()} to {level.max()}",
            )
        apart = np.square(self._encoded(states)[:, None, :] - self.centroids).sum(axis=2)
        distances = np.stack([apart[:, self.owners == own].min(axis=1) for own in range(self.settings.tiers)], axis=1)
        return permitted_tier(distances, level)

    def act(self, states: Array, level: Array) -> Array:
        """Return actions (n, A) of length 1 in states (n, S), for users of tier ``level`` (n,)."""
        tier = torch.from_numpy(self.tiers(states, level))
        with torch.no_grad():
            found = self.network(self._told(states).to(self.device), tier.to(self.device))
        return np.asarray(found.cpu().numpy(), np.float64)

    def prior(self, states: Array, level: Array, vectors: Array) -> Array:
        """Return the cosines (n, M) between candidates' vectors (n, M, A) and the actions.

        They are meant to be added to a ranker's scores.
        """
        lengths = np.maximum(np.linalg.norm(vectors, axis=2), 1e-12)
        return np.asarray(np.einsum("na,nma->nm", self.act(states, level), vectors) / lengths)

    def weights(self) -> dict[str, Array]:
        """Return the network, the centroids and the scale of the states."""
        network = {f"network.{name}": value.cpu().numpy() for name, value in self.network.state_dict().items()}
        own = {name: getattr(self, name) for name in ("centre", "scale", "centroids", "owners")}
        return {**network, **own}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the policy from :meth:`weights`."""
        self.centre, self.scale = weights["centre"], weights["scale"]
        self.centroids, self.owners = weights["centroids"], weights["owners"]
        self._build(len(self.centre), len(weights["network.heads.0.weight"]), None)
        state = {name.removeprefix("network."): torch.from_numpy(v) for name, v in weights.items() if "." in name}
        self.network.load_state_dict(state)

    def _build(self, states: int, actions: int, device: str | None) -> None:
        self.device = pick_device(device or self.settings.device)
        self.network = CloningNetwork(states, actions, self.settings).to(self.device)

    def _train(self, states: torch.Tensor, actions: torch.Tensor, tier: torch.Tensor, seed: int) -> None:
        s, random = self.settings, np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=s.learning_rate)
        self.facts["losses"] = []
        for _ in range(s.epochs):
            order, losses = torch.from_numpy(random.permutation(len(states))), []
            for rows in order.split(s.batch):
                found = self.network(states[rows].to(self.device), tier[rows].to(self.device))
                loss = cloning_loss(found, actions[rows].to(self.device), s.diversity)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append(float(loss.detach()))
            self.facts["losses"].append(float(np.mean(losses)))

    def _told(self, states: Array) -> torch.Tensor:
        return torch.from_numpy(((states - self.centre) / self.scale).astype(np.float32))

    def _encoded(self, states: Array) -> Array:
        with torch.no_grad():
            return np.asarray(self.network.encoder(self._told(states).to(self.device)).cpu().numpy())

    def _centroids(self, encoded: Array, seed: int) -> Array:
        count = min(self.settings.centroids, len(encoded))
        means = faiss.Kmeans(encoded.shape[1], count, niter=20, seed=seed, min_points_per_centroid=1)
        means.train(np.ascontiguousarray(encoded))
        return np.asarray(means.centroids)
