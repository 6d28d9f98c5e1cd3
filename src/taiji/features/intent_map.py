"""Learnt alignment of the intent space: a linear map that moves intents closer to the texts of the next items.

An embedder places "a gift for a gardener" near other gifts, not near the seeds that were bought. The map is initialised
as the identity and fitted contrastively on the language model's training period (never on that of the rankers or on the
test period). It remains the identity unless it ranks the next items higher on the latest of these rows. Its version is
part of ``intent_embedder`` in the rows.
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
"""Folder of the map, next to the feature tables."""
LATEST = 0.2
"""Share of the rows, the latest ones, on which the map is compared with the identity. The same number of rows just
before these is used for early stopping."""
ERRORS = 2.0
"""Number of standard errors by which the rank of the next items must improve on the latest rows."""
FEWEST = 16
"""Smallest number of rows for a fit."""


class IntentMapSettings(Settings):
    """Fit of the map."""

    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax over items."""
    penalty: float = Field(default=0.01, ge=0)
    """Penalty on the squared distance from the identity."""
    steps: PositiveInt = 200
    """Largest number of steps, each over all rows."""
    patience: PositiveInt = 20
    """Number of steps without improvement on later rows after which fitting stops."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Learning rate of Adam."""


class IntentMap(LearntComponent):
    """Linear map of the intent space; see the module docstring.

    Args:
        settings: settings of the fit.
    """

    Settings = IntentMapSettings
    settings: IntentMapSettings

    def __init__(self, settings: IntentMapSettings | None = None) -> None:
        super().__init__(settings)
        self.matrix: Array = np.zeros((0, 0))

    def fit(self, intents: Array, weights: Array, items: Array, next_items: Sequence[Sequence[int]]) -> Self:
        """Fit the map on the next items.

        Args:
            intents: (N, m, d) unit vectors of rows in time order, padded with zeros at the end.
            weights: (N, m), whose rows sum to 1, or to 0 without intents.
            items: (n, d) unit vectors of all next items, which are also the negatives.
            next_items: N lists of indices into ``items``.

        Raises:
            InputError: too few rows have both intents and items.
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
            """Return the scores of all items for the rows, (R, n)."""
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
        """Return True if the map is the identity."""
        return bool(np.array_equal(self.matrix, np.eye(len(self.matrix))))

    def apply(self, vectors: Array) -> Array:
        """Return the mapped unit vectors (K, d) float32; a zero vector stays zero. The result of a row is bitwise
        independent of the other rows."""
        moved = exact_product(np.asarray(vectors, np.float64), self.matrix)
        lengths = np.sqrt(np.einsum("kd,kd->k", moved, moved))[:, None]
        return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0).astype(np.float32)

    def named(self, embedder: str) -> str:
        """Return ``name@version`` of an embedder with the map's version appended."""
        return f"{embedder}+{self.version}"

    def weights(self) -> dict[str, Array]:
        """Return the matrix by name."""
        return {"matrix": self.matrix}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the map from :meth:`weights`."""
        self.matrix = np.array(weights["matrix"])


def _places(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean relative rank (R,) of the wanted items: 1 for the highest score of all n items, 0 for the lowest.

    Args:
        scores: (R, n).
        wanted: (R, n) weights of the wanted items; each row sums to 1.
    """
    order = scores.argsort(dim=1).argsort(dim=1).to(scores.dtype)
    return (order * wanted).sum(dim=1) / max(scores.shape[1] - 1, 1)
