"""Training of a behaviour diffusion: encoder, diffusion and head, one after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taiji.core.progress import progress
from taiji.models.retrieval.behaviour_batches import Histories, MaskedBatch
from taiji.models.retrieval.behaviour_network import BehaviourNetwork
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.models.retrieval.mean_loss import mean_loss
from taiji.models.retrieval.vector_retriever import in_blocks
from taiji.nn.devices import on_device
from taiji.nn.early_stopping import BestWeights
from taiji.nn.sampled_softmax import sampled_softmax_loss

Array = NDArray[Any]
log = logging.getLogger(__name__)


class BehaviourTraining:
    """Training run of a behaviour diffusion.

    Args:
        network: network to train.
        data: training histories.
        valid: users (V,), and the item (V,) of each user's held-out interaction with the target behaviour.
        target: index of the target behaviour.
        chance: (N,) sampling probability of each item as a negative.
        random: random generator of batches, masks and negatives.

    Attributes:
        checks: entries by stage, one per check: epoch, training loss, and validation NDCG@10 (None in the diffusion
            stage).
    """

    def __init__(
        self,
        network: BehaviourNetwork,
        settings: BehaviourDiffusionSettings,
        data: Histories,
        valid: tuple[Array, Array],
        target: int,
        chance: Array,
        random: np.random.Generator,
    ) -> None:
        self.network, self.settings, self.data, self.valid = network, settings, data, valid
        self.target, self.chance, self.random = target, chance, random
        self.checks: dict[str, list[dict[str, Any]]] = {}

    def encoder(self) -> None:
        """Train item embeddings, encoder and head to predict masked items."""
        own = [value for name, value in self.network.named_parameters() if not name.startswith("denoiser.")]
        self._stage("encoder", own, self._encoder_loss, self.settings.epochs)

    def diffusion(self) -> None:
        """Train the denoiser with the encoder fixed, then the head on the diffusion's samples."""
        network, settings = self.network, self.settings
        self._stage("diffusion", list(network.denoiser.parameters()), self._diffusion_loss, settings.diffusion_epochs)
        self._stage("head", [*network.head.parameters(), network.bias], self._head_loss, settings.head_epochs)

    def _stage(
        self, name: str, parameters: list[nn.Parameter], loss: Callable[[MaskedBatch], torch.Tensor], epochs: int
    ) -> None:
        """Train the given parameters. The encoder and head stages stop early and keep the best weights; the diffusion
        stage only records its loss."""
        settings, network = self.settings, self.network
        optimiser = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        best = BestWeights(network, settings.patience)
        checks = self.checks[name] = []
        with progress(f"Behaviour diffusion, {name}", total=epochs, unit="epochs") as update:
            for epoch in range(1, epochs + 1):
                network.train(name == "encoder")
                mean = self._epoch(optimiser, parameters, loss)
                update(epoch)
                if epoch % settings.check_every and epoch != epochs:
                    continue
                quality = None if name == "diffusion" else self.quality(name == "head")
                checks.append({"epoch": epoch, "loss": mean, "ndcg": quality})
                log.info("%s, epoch %d: loss %.4f, validation NDCG@10 %s", name, epoch, mean, quality)
                if quality is not None and not math.isnan(quality) and best.stop(quality):
                    break
        best.restore()

    def _epoch(
        self,
        optimiser: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        loss: Callable[[MaskedBatch], torch.Tensor],
    ) -> float:
        settings, losses = self.settings, []
        for batch in self.data.epoch(
            settings.batch, settings.masked, settings.hidden_behaviours, self.network.mask, self.random
        ):
            value = loss(batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            losses.append(value.detach())
        return mean_loss(losses)

    def _encoder_loss(self, batch: MaskedBatch) -> torch.Tensor:
        hidden = np.where(batch.hidden, self.network.masked_behaviour, batch.behaviours)
        latent = self.network.encode(*self._tensors(batch.items, hidden, batch.places))
        return self._item_loss(latent, batch.targets, self.network.items())

    def _diffusion_loss(self, batch: MaskedBatch) -> torch.Tensor:
        items, behaviours, places = self._tensors(batch.items, batch.behaviours, batch.places)
        told = torch.rand(len(places), device=places.device) >= self.settings.dropped
        step = torch.randint(1, self.settings.steps + 1, (len(places),), device=places.device)
        noise = torch.randn(len(places), self.settings.width, device=places.device)
        return self.network.transfer_loss(items, behaviours, places, told, step, noise).mean()

    def _head_loss(self, batch: MaskedBatch) -> torch.Tensor:
        items, behaviours, places = self._tensors(batch.items, batch.behaviours, batch.places)
        start = torch.randn(len(places), self.settings.width, device=places.device)
        latent = self.network.sampled(items, behaviours, places, start)
        return self._item_loss(latent, batch.targets, self.network.items(fixed=True))

    def _tensors(self, *parts: Array) -> list[torch.Tensor]:
        return [on_device(part, self.network.start.device) for part in parts]

    def _item_loss(self, latent: torch.Tensor, targets: Array, table: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the target items (M,), given latents (M, d). The softmax is over sampled
        negatives, or over the whole catalogue if ``negatives`` is 0."""
        states, (wanted,) = self.network.asked(latent), self._tensors(targets)
        if not self.settings.negatives:
            return nn.functional.cross_entropy(states @ table.T, wanted)
        drawn = self.random.choice(len(self.chance), self.settings.negatives, p=self.chance)
        negatives, log_chance = self._tensors(drawn, np.log(self.chance[drawn]).astype(np.float32))
        return sampled_softmax_loss(states, wanted, table, negatives, log_chance)

    def quality(self, sampled: bool) -> float:
        """Return NDCG@10 of the held-out interactions, each ranked among all items of the catalogue, including those
        that the user has already seen. The result is NaN if nothing is held out.

        Args:
            sampled: True to rank by a sample of the diffusion, False to rank by the encoder's latent.
        """
        users, targets = self.valid
        if not len(users):
            return math.nan
        total = 0.0
        with torch.no_grad():
            table = self.network.items()
            for block in in_blocks(len(users)):
                items, told = (part[:, : self.settings.history] for part in self.data.padded(users[block]))
                asked = self.network.queries(items, told, self.target, sampled)
                query, wanted = self._tensors(asked, targets[block])
                scores = query @ table.T
                rank = (scores > scores.gather(1, wanted[:, None])).sum(dim=1).double()
                total += float(torch.where(rank < 10, 1 / torch.log2(rank + 2), torch.zeros_like(rank)).sum())
        return total / len(users)
