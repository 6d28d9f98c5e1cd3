"""Use of videos that are already on the user's device in place of videos that may stall (GRF, arXiv 2410.05863).

A gate predicts the probability p that a video stalls. A ranker predicts the worth v of a video that does not stall.
The expected worth of a streamed video is v − p · C, where C is the cost of a stall. The videos on the device are called
the *pool*. Such a video cannot stall, but its worth r is discounted by the time since it was loaded. A streamed video
is replaced if r is larger than its expected worth, that is, if p > (v − r) / C.

It is never observed whether a replaced video would have stalled. Therefore some videos that should be replaced are kept
at random. The propensities are logged, and training rows are weighted by the inverse propensity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.core.errors import ArtifactError, InputError
from taiji.core.optional import needs
from taiji.core.settings import Settings as Base
from taiji.models.fusion.learnt_fusion import circumstances
from taiji.models.learnt_component import LearntComponent, known_values
from taiji.world.draws import Draws

if TYPE_CHECKING:
    from lightgbm import Booster

Array = NDArray[Any]
CACHED, HOURS = "cached", "cached_hours"
"""Columns of the requests, (B, P) each: items on the user's device, padded with −1, and hours since each was loaded."""
PREFETCHED, PROPENSITY = "prefetched", "propensity"
"""Columns of the list, (B, L) each: 1 for an item from the device, else 0; the item's propensity at its position."""


class DeviceGateSettings(Base):
    """Settings of the stall gate and of the ranker that predicts the worth of videos."""

    numbers: tuple[str, ...] = ()
    """Numeric inputs besides the score, such as `bitrate` or `buffered`: columns of the requests or of the items,
    available on the device before a video plays."""
    categories: tuple[str, ...] = ("network",)
    """Categorical inputs, available on the device before a video plays. An unseen value is encoded as all zeros."""
    stall_cost: float = Field(default=1.0, ge=0)
    """Cost C of a stall, in the unit of the training values. With 0, stalls are ignored; only worths are compared."""
    half_life_hours: float = Field(default=24.0, gt=0)
    """Number of hours in which a video on the device loses half its worth."""
    explore: float = Field(default=0.02, ge=0, lt=1)
    """Probability with which a video that should be replaced is kept, for exploration."""
    trees: PositiveInt = 60
    leaves: int = Field(default=15, ge=2)
    """Number of leaves per tree."""
    rate: float = Field(default=0.1, gt=0)
    least_rows: PositiveInt = 20
    """Smallest number of training rows in a leaf."""


@dataclass(frozen=True, eq=False)
class PlayedVideos:
    """Logged lists, and the outcome of each video in them.

    Attributes:
        requests: B requests, with the columns that the gate reads.
        slate: (B, L) shown items, with their scores.
        stalled: (B, L) 1 if the video stalled, else 0; NaN if it was not played, or was played from the device.
        values: (B, L) worth of videos that played without a stall; read only where ``stalled`` is 0.
        propensity: (B, L) probability with which the item was shown at its position, as logged by
            :meth:`DeviceGate.rerank`; None if no video was replaced.
    """

    requests: Requests
    slate: Slate
    stalled: Array
    values: Array
    propensity: Array | None = None


class DeviceGate(LearntComponent):
    """Re-ranker that replaces videos of the list by candidates on the user's device that have a higher expected worth.

    If no candidate is on the device, the list is ordered by score.

    Args:
        settings: settings of the gate.
        items: attributes of all items by name, (N,) numbers each, for names in ``settings.numbers`` and
            ``settings.categories``. A column of the requests with the same name is used instead.
    """

    Settings: ClassVar[type[Base]] = DeviceGateSettings
    settings: DeviceGateSettings

    def __init__(self, settings: DeviceGateSettings | None = None, items: Mapping[str, Array] | None = None) -> None:
        super().__init__(settings)
        self.items = {name: np.asarray(values, np.float64) for name, values in (items or {}).items()}

    def fit(self, played: PlayedVideos, *, seed: int = 0) -> Self:
        """Fit the gate and the ranker. The same seed gives the same weights.

        Raises:
            InputError: no video was streamed, a streamed video has a propensity outside (0, 1], or no video played
                without a stall.
            ResourceError: lightgbm is not installed.
        """
        known = np.isfinite(played.stalled) & played.slate.mask
        propensity = np.ones(known.shape) if played.propensity is None else np.asarray(played.propensity, np.float64)
        usable = (propensity > 0) & (propensity <= 1)
        if not known.any() or not usable[known].all():
            raise InputError(
                "The stall gate cannot be fitted to these videos.",
                where="stalled, propensity",
                expected="streamed videos, each with the probability in (0, 1] of being at its position",
                found=f"{int(known.sum())} streamed, {int((known & ~usable).sum())} without such a probability",
                fix="log with some exploration, and log its propensities",
            )
        columns = self._columns(played.requests, played.slate, self.settings.categories)
        self.facts = {"categories": [known_values(column[known]) for column in columns]}
        features, weight = self.features(played.requests, played.slate)[known], 1 / propensity[known]
        stalled, values = played.stalled[known], played.values[known]
        through = (stalled == 0) & np.isfinite(values)
        if not through.any():
            raise InputError(
                "No video played without a stall, so the value of videos cannot be learnt.", where="values"
            )
        self.facts["gate"] = self._trees("binary", features, stalled, weight, seed)
        self.facts["ranker"] = self._trees("regression", features[through], values[through], weight[through], seed)
        self.restore(self.weights())
        return self

    def features(self, requests: Requests, slate: Slate) -> Array:
        """Return the inputs of gate and ranker, (B, M, F) float32: the score, numbers, and one-hot categories."""
        parts = [
            _scores(slate)[..., None],
            *(c[..., None] for c in self._columns(requests, slate, self.settings.numbers)),
        ]
        columns = self._columns(requests, slate, self.settings.categories)
        parts += [column[..., None] == np.array(known) for column, known in zip(columns, self.facts["categories"])]
        found = np.concatenate([np.asarray(part, np.float32) for part in parts], axis=2)
        if not np.isfinite(found[slate.mask]).all():
            raise InputError(
                "A numeric input of the device gate is not finite.",
                where="score, " + ", ".join(self.settings.numbers),
                expected="a number for every candidate",
                found=f"{int((~np.isfinite(found[slate.mask])).sum())} that are not",
            )
        return found

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return the probability p of a stall and the worth v without a stall, (…,) each, from features (…, F)."""
        flat = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
        if not len(flat):
            return np.zeros(features.shape[:-1]), np.zeros(features.shape[:-1])
        stall, value = (np.asarray(b.predict(flat, num_threads=1)) for b in (self.gate, self.ranker))
        return stall.reshape(features.shape[:-1]), np.maximum(value, 0.0).reshape(features.shape[:-1])

    def need(self, stall: Array, value: Array) -> Array:
        """Return p · C − v, the gain from removing each video from the list, in the shape of ``stall``."""
        return np.asarray(self.settings.stall_cost * stall - value)

    def rerank(self, requests: Requests, slate: Slate, length: int) -> Slate:
        """Return at most ``length`` items of the slate per request, with columns ``prefetched`` and ``propensity``.

        Before replacement, the list consists of the items with the highest scores. The pool consists of those other
        candidates that are in the column ``cached`` of the requests.
        """
        order = np.argsort(np.where(slate.mask, -_scores(slate), np.inf), axis=1, kind="stable")
        ordered = slate.take(order)
        cached, hours = _cached(requests, ordered.items)
        width = min(length, ordered.items.shape[1])
        stall, value = np.zeros(cached.shape), np.zeros(cached.shape)
        pooled = np.flatnonzero(cached.any(axis=1))  # requests without a pool may have missing inputs
        if len(pooled):
            part = Slate(slate.items[pooled], _scores(slate)[pooled])  # in the slate's order, like columns of requests
            found_there = self.predict(self.features(requests.take(pooled), part))
            stall[pooled], value[pooled] = (np.take_along_axis(each, order[pooled], axis=1) for each in found_there)
        need = np.where(ordered.mask & ~cached, self.need(stall, value), -np.inf)[:, :width]
        worth = np.where(cached, value * decay(hours, self.settings.half_life_hours), -np.inf)[:, width:]
        found = replacements(need, worth)
        place, explore = np.arange(width), self.settings.explore
        drawn = Draws(0, "device gate").uniform(
            "keep", requests.same_user[:, None], requests.time[:, None], place[None]
        )
        kept = (found >= 0) & (drawn.reshape(found.shape) < explore)
        places = np.where((found >= 0) & ~kept, width + found, place)
        chance = np.where(found < 0, 1.0, np.where(kept, explore, 1 - explore))
        shown = ordered.take(places)
        columns = {PREFETCHED: np.take_along_axis(cached, places, axis=1).astype(np.int64), PROPENSITY: chance}
        return replace(shown, columns={**shown.columns, **columns})

    def weights(self) -> dict[str, Array]:
        """Return the attributes of the items. The trees are stored as text in the facts."""
        return dict(self.items)

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the gate from :meth:`weights` and the trees in the facts."""
        self.items = dict(weights)
        with needs("device", where="rerank: device_gate"):
            from lightgbm import Booster
        self.gate: Booster = Booster(model_str=self.facts["gate"])
        self.ranker: Booster = Booster(model_str=self.facts["ranker"])

    def _columns(self, requests: Requests, slate: Slate, names: tuple[str, ...]) -> list[Array]:
        shape, items = slate.items.shape, np.where(slate.mask, slate.items, 0)
        own = {name: values[items] for name, values in self.items.items() if name in names}
        asked = replace(requests, columns={**own, **requests.columns})
        return [circumstances(name, asked, (shape[0], shape[1]), None) for name in names]

    def _trees(self, objective: str, features: Array, labels: Array, weight: Array, seed: int) -> str:
        with needs("device", where="rerank: device_gate"):
            import lightgbm
        s = self.settings
        fixed = {"objective": objective, "verbose": -1, "num_threads": 1, "deterministic": True, "use_missing": False}
        sizes = {"num_leaves": s.leaves, "learning_rate": s.rate, "min_data_in_leaf": s.least_rows, "seed": seed}
        parameters = {**fixed, **sizes}
        data = lightgbm.Dataset(np.asarray(features, np.float64), labels, weight=weight, params=parameters)
        return str(lightgbm.train(parameters, data, s.trees).model_to_string())


def replacements(need: Array, worth: Array) -> Array:
    """Return the replacements that maximise the expected worth of the list.

    For each video, this is the index of its replacement in the pool, (B, L) int64, or −1 to keep the video.

    Args:
        need: (B, L) gain from removing each video, p · C − v; −inf for a video that must be kept.
        worth: (B, P) discounted worth of the videos in the pool; −inf for other candidates.

    The gain from a replacement is need + worth and does not depend on other replacements. Therefore the largest needs
    are paired with the largest worths as long as the gain is positive. The chosen replacements are then placed at the
    positions of the replaced videos, in order of decreasing worth.
    """
    count = min(need.shape[1], worth.shape[1])
    if not count:
        return np.full(need.shape, -1)
    by_need = np.argsort(-need, axis=1, kind="stable")[:, :count]
    by_worth = np.argsort(-worth, axis=1, kind="stable")[:, :count]
    gain = np.take_along_axis(need, by_need, axis=1) + np.take_along_axis(worth, by_worth, axis=1)
    chosen = np.zeros(need.shape, dtype=bool)
    np.put_along_axis(chosen, by_need, gain > 0, axis=1)
    rank = np.clip(np.cumsum(chosen, axis=1) - 1, 0, count - 1)
    return np.where(chosen, np.take_along_axis(by_worth, rank, axis=1), -1)


def decay(hours: Array, half_life: float) -> Array:
    """Return 2^(−hours / half_life), the share of a video's worth that remains after some hours."""
    return np.asarray(np.exp2(-np.asarray(hours, np.float64) / half_life))


def _scores(slate: Slate) -> Array:
    assert slate.scores is not None
    return slate.scores


def _cached(requests: Requests, items: Array) -> tuple[Array, Array]:
    """Return a mask of the items (B, M) on the device, and the hours since they were loaded; 0 for other items."""
    pool = np.asarray(requests.columns.get(CACHED, np.full((len(requests), 0), NO_ITEM)))
    hours = np.asarray(requests.columns.get(HOURS, np.zeros(pool.shape)), np.float64)
    if pool.ndim != 2 or hours.shape != pool.shape or not (hours[pool != NO_ITEM] >= 0).all():
        raise InputError(
            "The pool of videos on the device is malformed.",
            where=f"requests, {CACHED}, {HOURS}",
            expected="(B, P) items padded with −1, and hours of 0 or more of the same shape",
            found=f"shapes {pool.shape} and {hours.shape}",
        )
    same = (items[:, :, None] == pool[:, None, :]) & (items[:, :, None] != NO_ITEM)
    age = np.where(same, hours[:, None, :], np.inf).min(axis=2, initial=np.inf)
    return same.any(axis=2), np.where(np.isfinite(age), age, 0.0)


def saved_device_gate(vectors: Array, strength: float = 0.7, *, folder: str, version: str) -> DeviceGate:
    """Return a saved gate as a re-ranker of a recipe.

    Args:
        vectors: (N, d) vectors of all items; only their number is checked.
        strength: weight of the scores against diversity; ignored by this re-ranker.
        folder: folder that :meth:`DeviceGate.save` wrote.
        version: expected version of the gate.

    Raises:
        ArtifactError: the gate in the folder has a different version or was fitted for a different number of items.
    """
    gate = DeviceGate.load(folder)
    counts = {len(values) for values in gate.items.values()} - {len(vectors)}
    if gate.version != version or counts:
        raise ArtifactError(
            "The saved gate has a different version or was fitted for different items.",
            where=folder,
            expected=f"version {version}, {len(vectors)} items",
            found=f"version {gate.version}, items {sorted(counts) or len(vectors)}",
            fix="set the version to that of the gate in the folder, or fit the gate with the items of this dataset",
        )
    return gate
