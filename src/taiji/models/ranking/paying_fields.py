"""Selection of fields marked ``must_pay``: a ranker keeps such a field only if it lowers the loss on held-out rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.progress import purpose
from taiji.data.field_set import Arrays, FieldSet
from taiji.models.ranking.training_loop import validation_loss

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker

log = logging.getLogger(__name__)
Array = NDArray[Any]
Again = Callable[[FieldSet, Arrays, Arrays], "Ranker"]
"""Function that trains another ranker from given fields, training rows and later rows, with the first ranker's seed."""
FOLDS = 20
"""Number of groups of users over which the standard error of a gain is computed."""


@dataclass(frozen=True)
class Worth:
    """Measured effect of a field on the loss.

    Attributes:
        field: name of the field.
        gain: reduction of the loss on the later rows.
        error: standard error of the gain over groups of users. With only one group, it is the absolute gain, so that
            the field is not kept.
    """

    field: str
    gain: float
    error: float

    @property
    def pays(self) -> bool:
        """True if the gain exceeds its standard error. About half of all uninformative fields have a gain above 0."""
        return self.gain > self.error

    def record(self) -> dict[str, Any]:
        """Return the result as a JSON-serialisable dict."""
        return {**asdict(self), "kept": self.pays}


def paying(ranker: Ranker, arrays: Arrays, later: Arrays, again: Again) -> Ranker:
    """Test each field marked ``must_pay``, from the last to the first, and return a ranker without those that fail.

    Args:
        ranker: ranker trained with all fields.
        arrays: training rows of the ranker.
        later: later rows on which losses are measured.
        again: function that trains a ranker with one field fewer.

    Returns:
        ranker trained without the fields that failed the test; the given ranker if no field failed or the later rows
        have no labels. The measurements are in its attribute :attr:`Ranker.worths`.
    """
    if not any(np.isfinite(later.labels[name]).any() for name in ranker.loss.labels):
        return ranker
    for field in reversed(ranker.fieldset.numbers):
        if not field.must_pay:
            continue
        smaller, (fewer, fewer_later) = without_field(ranker.fieldset, field.name, arrays, later)
        with purpose(f"without {field.name}"):
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
    """Return the worth of a field from the losses of two rankers, one without the field and one with it.

    Args:
        field: name of the field.
        without: (G,) mean loss per group of users, without the field.
        given: (G,) mean loss per group of users, with the field.
        rows: (G,) number of rows per group; empty groups are ignored.
    """
    groups = rows > 0
    parts = (without - given)[groups] * rows[groups] / rows[groups].mean()
    gain = float(parts.mean()) if len(parts) else 0.0
    return Worth(field, gain, float(parts.std(ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else abs(gain))


def user_groups(user: Array) -> Array:
    """Return the index of the user group of each row, (N,) int64 below :data:`FOLDS`. Users are assigned at random."""
    users = np.unique(user)
    drawn: Array = np.random.default_rng(0).permutation(len(users))[np.searchsorted(users, user)] % FOLDS
    return drawn


def losses_by_group(ranker: Ranker, later: Arrays) -> tuple[Array, Array]:
    """Return the ranker's mean loss and the number of later rows for each group of users, each (G,)."""
    group = user_groups(later.user)
    losses, rows = np.zeros(FOLDS), np.bincount(group, minlength=FOLDS)
    for number in np.flatnonzero(rows):
        losses[number] = validation_loss(ranker, later.take(group == number))
    return losses, rows


def without_field(fieldset: FieldSet, name: str, *parts: Arrays) -> tuple[FieldSet, list[Arrays]]:
    """Return the fields without the numeric field ``name``, and the given arrays without the columns of this field."""
    kept = np.concatenate([np.full(len(field.labels), field.name != name) for field in fieldset.numbers])
    smaller = FieldSet([field for field in fieldset.fields if field.name != name])
    return smaller, [replace(part, numbers=np.ascontiguousarray(part.numbers[:, kept])) for part in parts]
