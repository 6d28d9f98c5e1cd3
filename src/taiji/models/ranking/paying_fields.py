"""Fields that must pay: a ranker keeps one only where it predicts later rows better with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.field_set import Arrays, FieldSet
from taiji.models.ranking.training_loop import validation_loss

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker

log = logging.getLogger(__name__)
Array = NDArray[Any]
Again = Callable[[FieldSet, Arrays, Arrays], "Ranker"]
"""(fields, training rows, later rows) → a ranker trained on them, from the same seed."""
FOLDS = 20
"""Groups of users from which a gain's standard error is computed."""


@dataclass(frozen=True)
class Worth:
    """Measured worth of a field.

    Attributes:
        field: its name. gain: reduction of the loss on the later rows. error: standard error of the gain, over groups of users; with one group, the
            gain's size.
    """

    field: str
    gain: float
    error: float

    @property
    def pays(self) -> bool:
        """True if the gain exceeds its error; about half of all uninformative fields would pass a mere test for a positive gain."""
        return self.gain > self.error

    def record(self) -> dict[str, Any]:
        """Return the record as a JSON-ready dict."""
        return {**asdict(self), "kept": self.pays}


def paying(ranker: Ranker, arrays: Arrays, later: Arrays, again: Again) -> Ranker:
    """Return the ranker trained again without each field that must pay and does not, the last field first.

    Args:
        ranker: trained with all of them. arrays, later: its training rows, and the later rows it is judged on.
        again: trains another ranker.

    Returns:
        the ranker itself if nothing is left out or the later rows have no labels; :attr:`Ranker.worths` holds the measurements.
    """
    if not any(np.isfinite(later.labels[name]).any() for name in ranker.loss.labels):
        return ranker
    for field in reversed(ranker.fieldset.numbers):
        if not field.must_pay:
            continue
        smaller, (fewer, fewer_later) = without_field(ranker.fieldset, field.name, arrays, later)
        other = again(smaller, fewer, fewer_later)
        given, rows = losses_by_group(ranker, later)
        found = worth(field.name, losses_by_group(other, fewer_later)[0], given, rows)
        log.info(
            "Field %s: the loss on later rows is %.5f lower with it (standard error %.5f); it is %s.",
            found.field,
            found.gain,
            found.error,
            "kept" if found.pays else "left out",
        )
        worths = (*ranker.worths, found)
        if not found.pays:
            ranker, arrays, later = other, fewer, fewer_later
        ranker.worths = worths
    return ranker


def worth(field: str, without: Array, given: Array, rows: Array) -> Worth:
    """Compare mean losses of groups of users without and with a field, (G,) each; ``rows`` (G,) is the number of rows behind each mean."""
    groups = rows > 0
    parts = (without - given)[groups] * rows[groups] / rows[groups].mean()
    gain = float(parts.mean()) if len(parts) else 0.0
    return Worth(field, gain, float(parts.std(ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else abs(gain))


def user_groups(user: Array) -> Array:
    """Return each row's group of users, (N,) int64 below :data:`FOLDS`, from its user."""
    users = np.unique(user)
    drawn: Array = np.random.default_rng(0).permutation(len(users))[np.searchsorted(users, user)] % FOLDS
    return drawn


def losses_by_group(ranker: Ranker, later: Arrays) -> tuple[Array, Array]:
    """Return a ranker's mean loss on the later rows of each group of users, and the number of rows, (G,) each."""
    group = user_groups(later.user)
    losses, rows = np.zeros(FOLDS), np.bincount(group, minlength=FOLDS)
    for number in np.flatnonzero(rows):
        losses[number] = validation_loss(ranker, later.take(group == number))
    return losses, rows


def without_field(fieldset: FieldSet, name: str, *parts: Arrays) -> tuple[FieldSet, list[Arrays]]:
    """Return a set of fields without one of its numbers, and arrays of rows without its columns."""
    kept = np.concatenate([np.full(len(field.labels), field.name != name) for field in fieldset.numbers])
    smaller = FieldSet([field for field in fieldset.fields if field.name != name])
    return smaller, [replace(part, numbers=np.ascontiguousarray(part.numbers[:, kept])) for part in parts]
