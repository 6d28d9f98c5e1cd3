"""Learned alignment of the intents' space: a linear map under which intents lie near the texts of what came next.

An embedder puts "a gift for a gardener" near other gifts and not near the seeds that were bought. The map is the identity at the start,
is fitted contrastively on the period that the language model was trained on (never on the rankers' or the test's), and stays the identity where
it does not put them higher on the latest of these rows. Its version is part of the rows' ``intent_embedder``.
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
"""Folder of the map beside the feature tables."""
LATEST = 0.2
"""Share of the rows, the latest, on which the map is compared with the identity; on as many before them fitting is stopped."""
ERRORS = 2.0
"""Standard errors by which the items that came next must stand higher among all, on the latest rows."""
FEWEST = 16
"""Rows to learn from."""


class IntentMapSettings(Settings):
    """Fit of the map."""

    temperature: float = Field(default=0.1, gt=0)
    """Of the softmax over items."""
    penalty: float = Field(default=0.01, ge=0)
    """Of the squared distance from the identity."""
    steps: PositiveInt = 200
    """Steps at most, each over all rows."""
    patience: PositiveInt = 20
    """Steps without a better loss on later rows after which fitting stops."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Step size of Adam."""


class IntentMap(LearntComponent):
    """See the module.

    Args:
        settings: of the fit.
    """

    Settings = IntentMapSettings
    settings: IntentMapSettings

    def __init__(self, settings: IntentMapSettings | None = None) -> None:
        super().__init__(settings)
        self.matrix: Array = np.zeros((0, 0))

    def fit(self, intents: Array, weights: Array, items: Array, next_items: Sequence[Sequence[int]]) -> Self:
        """Learn from what came next.

        Args:
            intents: (N, m, d) unit vectors of rows in time order, zero behind the last. weights: (N, m), each row's sum 1, or 0 where it has none.
            items: (n, d) unit vectors of the items that came next to anyone; the contrast. next_items: N lists of places in ``items``.

        Raises:
            InputError: too few rows have intents and items.
        """
        kept = [row for row, found in enumerate(next_items) if len(found) and weights[row].sum() > 0]
        if len(kept) < FEWEST:
            raise InputError(
                "The map of intents has too little to learn from.",
                where="features.align_intents",
                expected=f"at least {FEWEST} prompts of the language model's period with intents and with items that came next",
                found=str(len(kept)),
                fix="raise size.rationale_prompts and size.alignment_prompts, or leave features.align_intents out",
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
            """Return scores of all items (R, n)."""
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
        if not gains.mean() > ERRORS * error:  # a better loss alone may come of scores that are less sure of themselves
            chosen, after = identity, before
        self.matrix = chosen.numpy().astype(np.float64)
        self.facts = {"rows": len(kept), "loss": round(after, 6), "loss_identity": round(before, 6)}
        return self

    @property
    def is_identity(self) -> bool:
        """Say if the map changes nothing."""
        return bool(np.array_equal(self.matrix, np.eye(len(self.matrix))))

    def apply(self, vectors: Array) -> Array:
        """Return vectors (K, d) moved, of length 1, float32; zero stays zero. Each row is the same bytes whatever others there are."""
        moved = exact_product(np.asarray(vectors, np.float64), self.matrix)
        lengths = np.sqrt(np.einsum("kd,kd->k", moved, moved))[:, None]
        return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0).astype(np.float32)

    def named(self, embedder: str) -> str:
        """Return ``name@version`` of an embedder with the map's version behind it."""
        return f"{embedder}+{self.version}"

    def weights(self) -> dict[str, Array]:
        """Return the matrix."""
        return {"matrix": self.matrix}

    def restore(self, weights: dict[str, Array]) -> None:
        """Take what :meth:`weights` returned."""
        self.matrix = np.array(weights["matrix"])


def _places(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean place of the wanted items among all (n of them), 1 for the first and 0 for the last; (R,).

    Args:
        scores: (R, n). wanted: (R, n), each row's sum 1.
    """
    order = scores.argsort(dim=1).argsort(dim=1).to(scores.dtype)
    return (order * wanted).sum(dim=1) / max(scores.shape[1] - 1, 1)
