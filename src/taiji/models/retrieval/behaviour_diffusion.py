"""Prediction of the next item for a given behaviour (FatsMB, KDD 2026). An encoder reads the history, and a diffusion
turns general preferences into behaviour-specific ones.

Training has three stages. First, the encoder learns to predict masked items in histories with all behaviours. Second,
with the encoder fixed, the diffusion learns to generate the latent vector of a masked item with its behaviour, given
the latent vector of the same item without its behaviour. Third, the head learns to predict items from the diffusion's
samples.

The implementation follows the authors' code, but corrects its guidance, masking and rotary scaling. The setting
``as_released`` restores the released versions.
"""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from taiji.core.component import Requests, pick_device
from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.models.retrieval.behaviour_batches import (
    Histories,
    behaviour_column,
    behaviours_of,
    held_out,
    names_of,
)
from taiji.models.retrieval.behaviour_network import BehaviourNetwork
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.models.retrieval.behaviour_training import BehaviourTraining
from taiji.models.retrieval.vector_retriever import VectorRetriever, in_blocks, to_numpy

Array = NDArray[Any]


class BehaviourDiffusion(VectorRetriever):
    """Retriever of items for one behaviour of a log with several behaviours. No item is retrieved for a user without a
    history.

    Attributes:
        encoder_of: fitted retriever of the same log, whose encoder :meth:`fit` reuses; None to train a new encoder.
    """

    Settings = BehaviourDiffusionSettings
    settings: BehaviourDiffusionSettings
    network: BehaviourNetwork
    encoder_of: BehaviourDiffusion | None = None
    _rows: pl.DataFrame
    _held: tuple[Dataset, History] | None = None

    def fit(
        self, dataset: Dataset, rows: pl.DataFrame | None = None, *, seed: int = 0, device: str | None = None
    ) -> Self:
        """Fit to interactions. The arguments are those of :meth:`CatalogueRetriever.fit`.

        Raises:
            InputError: the log has no behaviour column.
            ConfigError: no interaction has the target behaviour, or the encoder to reuse does not match.
        """
        self._rows = dataset.events if rows is None else rows
        self.facts = {"behaviours": names_of(dataset, self._rows, self.settings.target)}
        try:
            return super().fit(dataset, rows, seed=seed, device=device)
        finally:
            del self._rows

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Train the encoder, the diffusion and the head, one after the other."""
        settings, random = self.settings, np.random.default_rng(seed)
        told = behaviours_of(self._rows, behaviour_column(self.dataset), self.facts["behaviours"], history)
        users, ends = held_out(history, told.items, self._target, settings.valid_users, random)
        items = np.asarray(history.items, np.int64)
        # One more position than the history has, because retrieval puts a masked item before the history.
        data = Histories(items, told.items, history.offsets[:-1], ends, settings.history + 1)
        chance = np.bincount(items, minlength=len(self.places)).astype(np.float64)
        chance[chance > 0] **= settings.popularity_power
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(device)
            training = BehaviourTraining(
                self.network, settings, data, (users, items[ends[users]]), self._target, chance / chance.sum(), random
            )
            if self.encoder_of is None:
                training.encoder()
            else:
                self._take_encoder(self.encoder_of)
            if settings.diffusion:
                training.diffusion()
        self.facts |= training.checks
        self._finish()

    def weights(self) -> dict[str, Array]:
        """Return the network's weights."""
        return {name: to_numpy(value) for name, value in self.network.state_dict().items()}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the network's weights."""
        self._build(device)
        self.network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        self._finish()

    def queries(self, requests: Requests) -> Array:
        """Return queries (B, d + 1) from the requests' histories; zeros for an empty history."""
        items, _ = self.recent(requests)
        told, _ = self._behaviours().before_batch(requests.user, requests.time, self.settings.history)
        behaviours = np.where(items >= 0, told, 0)
        parts = (
            self.network.queries(items[block] + 1, behaviours[block], self._target, self.settings.diffusion)
            for block in in_blocks(len(items))
        )
        return np.concatenate(list(parts))

    def redrawn(self, seed: int) -> Self:
        """Return a copy that starts the diffusion from newly drawn noise. The more the results of such copies agree,
        the more certain the diffusion is."""
        made = copy(self)
        made.network = deepcopy(self.network)
        noise = torch.randn(self.settings.width, generator=torch.Generator().manual_seed(seed))
        made.network.start.copy_(noise)
        return made

    @property
    def _target(self) -> int:
        return int(self.facts["behaviours"].index(self.settings.target)) + 1

    def _behaviours(self) -> History:
        """Return the dataset's history with behaviours in place of items. It is read once per dataset and cached."""
        if self._held is None or self._held[0] is not self.dataset:
            column = behaviour_column(self.dataset)
            events = self.dataset.scan().filter(pl.col("click") == 1).select("user", "click", column).collect()
            self._held = self.dataset, behaviours_of(events, column, self.facts["behaviours"], self.dataset.history)
        return self._held[1]

    def _build(self, device: str | None) -> None:
        self.device = pick_device(device or self.settings.device)
        self.network = BehaviourNetwork(len(self.places), len(self.facts["behaviours"]), self.settings).to(self.device)

    def _finish(self) -> None:
        self.network.eval()
        with torch.no_grad():
            self.vectors = to_numpy(self.network.items())

    def _take_encoder(self, other: BehaviourDiffusion) -> None:
        mine, theirs = self.network.state_dict(), other.network.state_dict()
        taken = {name: value for name, value in theirs.items() if not name.startswith(("denoiser.", "start"))}
        wrong = [name for name in mine if name in taken and mine[name].shape != taken[name].shape]
        wrong += sorted(set(taken) ^ {name for name in mine if not name.startswith(("denoiser.", "start"))})
        if wrong or other.facts["behaviours"] != self.facts["behaviours"] or not self.item_ids.equals(other.item_ids):
            raise ConfigError(
                "The encoder of a different log or of a different shape cannot be reused.",
                where="encoder_of",
                expected="the same items and behaviours, and the same settings of the encoder",
                found=f"different {', '.join(wrong)}" if wrong else "different items or behaviours",
            )
        self.network.load_state_dict(mine | taken)
        self.facts["encoder"] = other.facts["encoder"]
