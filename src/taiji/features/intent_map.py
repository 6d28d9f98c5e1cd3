"""Learnt alignment of the intent space: a linear map that moves intents closer to the texts of the next items.

A text embedder places "a gift for a gardener" near other gifts rather than near the seeds that were bought. The map is
initialised as the identity, and is fitted contrastively on rows of the language model's training period. The training
period of the rankers and the test period are never used. The map remains the identity unless it ranks the next items
higher on the latest rows of the fit. The map's version is part of ``intent_embedder`` in the feature rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch.nn import functional

from taiji.core.errors import InputError
from taiji.core.settings import Settings
from taiji.models.learnt_component import LearntComponent
from taiji.nn.quantised_vectors import exact_product

Array = NDArray[Any]
MAP = "intent-map"
"""Name of the map's folder, next to the feature tables."""
LATEST = 0.2
"""Share of the rows on which the map is compared with the identity; these are the latest rows. The same number of rows
just before them is used for early stopping."""
ERRORS = 2.0
"""Number of standard errors by which the mean rank of the next items must improve on the latest rows."""
FEWEST = 16
"""Smallest number of rows for a fit."""


class IntentMapSettings(Settings):
    """Settings of the fit of the intent map."""

    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax over items."""
    penalty: float = Field(default=0.01, ge=0)
    """Weight of the penalty, which is the squared distance of the matrix from the identity."""
    steps: PositiveInt = 200
    """Largest number of optimisation steps, each over all training rows."""
    patience: PositiveInt = 20
    """Number of steps without improvement on later rows after which fitting stops."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Learning rate of Adam."""


class IntentMap(LearntComponent):
    """Linear map that moves intents closer to the texts of the next items.

    Args:
        settings: settings of the fit.
    """

    Settings = IntentMapSettings
    settings: IntentMapSettings

    def __init__(self, settings: IntentMapSettings | None = None) -> None:
        super().__init__(settings)
        self.matrix: Array = np.zeros((0, 0))

    def fit(self, intents: Array, weights: Array, items: Array, next_items: Sequence[Sequence[int]]) -> Self:
        """Fit the map to the next items of the rows.

        Args:
            intents: (N, m, d) unit vectors of the intents of N rows in time order, padded with zeros at the end.
            weights: (N, m) weights of the intents, which sum to 1 per row, or to 0 for a row without intents.
            items: (n, d) unit vectors of the next items of all rows. For each row, the items that are not its next
                items are negatives.
            next_items: N lists with the indices of each row's next items in ``items``.

        Raises:
            InputError: too few rows have both intents and next items.
        """
        kept = [row for row, found in enumerate(next_items) if len(found) and weights[row].sum() > 0]
        if len(kept) < FEWEST:
            raise InputError(
                "There are too few rows to fit the intent map.",
                where="features.align_intents",
                expected=f"at least {FEWEST} prompts of the language model's period with intents and next items",
                found=str(len(kept)),
                fix="raise size.rationale_prompts and size.alignment_prompts, or unset features.align_intents",
            )
        told, mass = (torch.from_numpy(np.asarray(part[kept], np.float32)) for part in (intents, weights))
        catalogue = torch.from_numpy(np.asarray(items, np.float32))
        wanted = torch.zeros(len(kept), len(items))
        for place, row in enumerate(kept):
            wanted[place, list(next_items[row])] = 1.0
        wanted /= wanted.sum(dim=1, keepdim=True)
        identity = torch.eye(told.shape[2])
        matrix = identity.clone().requires_grad_()
        late = max(1, round(LATEST * len(kept)))

        def scores(rows: slice, used: torch.Tensor) -> torch.Tensor:
            """Return the scores (R, n) of all items for the rows."""
            near = functional.normalize(told[rows] @ used, dim=-1) @ catalogue.T / self.settings.temperature
            return torch.logsumexp(near + torch.log(mass[rows].clamp_min(1e-9))[:, :, None], dim=1)

        def loss(rows: slice, used: torch.Tensor) -> torch.Tensor:
            return -(wanted[rows] * torch.log_softmax(scores(rows, used), dim=1)).sum(dim=1).mean()

        early, stop = slice(0, len(kept) - 2 * late), slice(len(kept) - 2 * late, len(kept) - late)
        latest = slice(len(kept) - late, None)
        with torch.no_grad():
            best = float(loss(stop, matrix))
        chosen, waited = identity, 0
        optimiser = torch.optim.Adam([matrix], lr=self.settings.learning_rate)
        for _ in range(self.settings.steps):
            optimiser.zero_grad()
            total = loss(early, matrix) + self.settings.penalty * ((matrix - identity) ** 2).sum()
            total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                now = float(loss(stop, matrix))
            waited = 0 if now < best else waited + 1
            if now < best:
                best, chosen = now, matrix.detach().clone()
            if waited >= self.settings.patience:
                break
        with torch.no_grad():
            before, after = (float(loss(latest, used)) for used in (identity, chosen))
            gains = (
                _places(scores(latest, chosen), wanted[latest]) - _places(scores(latest, identity), wanted[latest])
            ).numpy()
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
        if not gains.mean() > ERRORS * error:  # a lower loss alone could come from less confident scores
            chosen, after = identity, before
        self.matrix = chosen.numpy().astype(np.float64)
        self.facts = {"rows": len(kept), "loss": round(after, 6), "loss_identity": round(before, 6)}
        return self

    @property
    def is_identity(self) -> bool:
        """True if the map is the identity."""
        return bool(np.array_equal(self.matrix, np.eye(len(self.matrix))))

    def apply(self, vectors: Array) -> Array:
        """Return the mapped vectors (K, d) float32, normalised to length 1. A vector of zeros stays zero. The result of
        a row does not depend on the other rows, to the last bit."""
        moved = exact_product(np.asarray(vectors, np.float64), self.matrix)
        lengths = np.sqrt(np.einsum("kd,kd->k", moved, moved))[:, None]
        return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0).astype(np.float32)

    def named(self, embedder: str) -> str:
        """Return the ``name@version`` of an embedder with the version of the map appended."""
        return f"{embedder}+{self.version}"

    def weights(self) -> dict[str, Array]:
        """Return the matrix (d, d) by name."""
        return {"matrix": self.matrix}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the map from :meth:`weights`."""
        self.matrix = np.array(weights["matrix"])


def _places(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean relative rank (R,) of the wanted items of each row. The relative rank of an item is 1 for the
    highest score of all n items, and 0 for the lowest.

    Args:
        scores: (R, n) scores of all items.
        wanted: (R, n) weights of the wanted items; each row sums to 1.
    """
    order = scores.argsort(dim=1).argsort(dim=1).to(scores.dtype)
    return (order * wanted).sum(dim=1) / max(scores.shape[1] - 1, 1)
