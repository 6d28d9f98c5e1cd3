"""Bradley–Terry reward model, which scores texts. It is trained on pairs of texts of which one was preferred.

A score is the sum of three parts: the quality of the text, the prior of its category, and the effect of its length. The
features of the text are residuals of a regression on category and length (Frisch and Waugh 1933), so that the quality
part cannot learn category or length. Over the training texts, the quality has mean zero in every category and no
correlation with length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.artifacts import atomic_file, atomic_folder, read_json, value_hash, write_json
from taiji.core.errors import ArtifactError, InputError
from taiji.nn.bradley_terry import fit_bradley_terry, pair_losses
from taiji.nn.text_style import STYLE_FEATURES, length_features, phrase_features, shared_phrases, style_features

if TYPE_CHECKING:
    from taiji.language.embed import Embedder

Array = NDArray[Any]
MODEL_FILE = "text_reward.json"
"""File name of a stored model."""
RIDGES = (0.3, 3.0, 30.0, 300.0, 3000.0)
"""Candidate ridge penalties; cross-validation over groups chooses one."""
FOLDS = 4
"""Number of folds of the cross-validation."""
NUISANCE_RIDGE = 1.0
"""Penalty on the coefficients of categories and length."""


@dataclass(frozen=True)
class TextScores:
    """Parts of the scores of N texts, each (N,). The difference of the total scores of two texts is the log-odds that
    the first one is preferred.

    Attributes:
        quality: score of the text, relative to its category and length.
        prior: score of the category.
        length: score of the length.
    """

    quality: Array
    prior: Array
    length: Array

    @property
    def total(self) -> Array:
        """Sum of the parts."""
        return np.asarray(self.quality + self.prior + self.length)


class TextRewardModel:
    """Bradley–Terry model over features of texts: an embedding, style features, and indicators of phrases that occur in
    the texts of many groups (such as items).

    Args:
        embedder: embedder of the texts.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.categories: tuple[str, ...] = ()
        self.phrases: tuple[str, ...] = ()
        self.ridge = float("nan")
        self.weights: dict[str, Array] = {}

    @property
    def version(self) -> str:
        """String that changes whenever a score may change."""
        return value_hash(
            [
                self.embedder.version,
                self.categories,
                self.phrases,
                {name: part.tolist() for name, part in self.weights.items()},
            ]
        )[:16]

    def fit(
        self,
        texts: Sequence[str],
        categories: Sequence[str],
        winners: Array,
        losers: Array,
        groups: Sequence[str],
        weights: Array | None = None,
    ) -> TextRewardModel:
        """Fit the model to pairs.

        Args:
            texts, categories: N texts, and the category of each text.
            winners, losers: (P,) positions in ``texts``.
            groups: (P,) group of each pair (its item); no group is split between training and validation folds.
            weights: (P,) weights of the pairs; None for 1 each.

        Raises:
            InputError: there is no pair.
        """
        winners, losers = np.asarray(winners, dtype=np.int64), np.asarray(losers, dtype=np.int64)
        if not len(winners):
            raise InputError(
                "There are no pairs to train a reward model with.",
                where="pairs",
                expected="two texts about one item, one of them significantly better",
                found="none",
                fix="send more texts, or lower copywriting.pairs.least_sends and least_z",
            )
        weight = np.ones(len(winners)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.categories = tuple(sorted(set(categories)))
        of = dict(zip(np.concatenate([winners, losers]).tolist(), [*groups, *groups]))
        self.phrases = shared_phrases([(texts[place], group) for place, group in of.items()])
        raw, lengths, places = self._features(texts), length_features(texts), self._places(categories)
        self.weights = _nuisance(raw, lengths, places, len(self.categories))
        matrix = self._matrix(raw, lengths, places)
        differences = matrix[winners] - matrix[losers]
        self.ridge = self._chosen_ridge(differences, weight, groups)
        self.weights["beta"] = fit_bradley_terry(differences, self._penalty(self.ridge), weight)
        return self

    def scores(self, texts: Sequence[str], categories: Sequence[str]) -> TextScores:
        """Return the parts of the scores of texts. A category that was not in the training data has the prior 0."""
        raw, lengths, places = self._features(texts), length_features(texts), self._places(categories)
        matrix, beta = self._matrix(raw, lengths, places), self.weights["beta"]
        width, count = raw.shape[1], len(self.categories)
        return TextScores(
            matrix[:, :width] @ beta[:width],
            matrix[:, width : width + count] @ beta[width : width + count],
            matrix[:, width + count :] @ beta[width + count :],
        )

    def save(self, folder: str | Path) -> None:
        """Write the model as safetensors and JSON; equal models give equal bytes."""
        from safetensors.numpy import save_file

        with atomic_folder(folder) as temporary:
            with atomic_file(temporary / "text_reward.safetensors") as file:
                save_file({name: np.ascontiguousarray(part) for name, part in sorted(self.weights.items())}, file)
            about = {
                "embedder": self.embedder.name,
                "embedder_version": self.embedder.version,
                "categories": list(self.categories),
                "phrases": list(self.phrases),
                "ridge": self.ridge,
                "style": list(STYLE_FEATURES),
            }
            write_json(temporary / MODEL_FILE, about)

    @classmethod
    def load(cls, folder: str | Path, embedder: Embedder | None = None) -> TextRewardModel:
        """Read a model that :meth:`save` wrote. If no embedder is given, the embedder is loaded by its name.

        Raises:
            ArtifactError: the model was trained with a different embedder or different style features.
        """
        from safetensors.numpy import load_file

        from taiji.language.embed import load_embedder

        about = read_json(Path(folder) / MODEL_FILE)
        made = cls(load_embedder(about["embedder"]) if embedder is None else embedder)
        for difference, then, now in (
            ("embedder differs", about["embedder_version"], made.embedder.version),
            ("style features differ", ", ".join(about["style"]), ", ".join(STYLE_FEATURES)),
        ):
            if then != now:
                raise ArtifactError(
                    f"The reward model was trained with other features: its {difference}.",
                    where=str(folder),
                    expected=then,
                    found=now,
                    fix="train it again",
                )
        made.categories, made.phrases = tuple(about["categories"]), tuple(about["phrases"])
        made.ridge = about["ridge"]
        made.weights = dict(load_file(Path(folder) / "text_reward.safetensors"))
        return made

    def _features(self, texts: Sequence[str]) -> Array:
        vectors = np.asarray(self.embedder.encode(list(texts)), dtype=np.float64)
        said = phrase_features(texts, self.phrases)
        return np.concatenate([vectors * np.sqrt(vectors.shape[1]), style_features(texts), said], axis=1)

    def _places(self, categories: Sequence[str]) -> Array:
        """Return the index of each category, −1 for an unknown one."""
        known = {name: place for place, name in enumerate(self.categories)}
        return np.array([known.get(name, -1) for name in categories], dtype=np.int64)

    def _matrix(self, raw: Array, lengths: Array, places: Array) -> Array:
        """Return (N, d): residual features, one column per category, and the length."""
        w = self.weights
        centred = lengths - w["length_means"][places]
        residual = (raw - w["means"][places] - centred @ w["slopes"]) / w["scales"]
        one_hot = (places[:, None] == np.arange(len(self.categories))).astype(np.float64)
        return np.concatenate([residual, one_hot, (lengths - w["length_means"][-1]) / w["length_scales"]], axis=1)

    def _penalty(self, ridge: float) -> Array:
        width = len(self.weights["scales"])
        rest = len(self.categories) + len(self.weights["length_scales"])
        return np.concatenate([np.full(width, ridge), np.full(rest, NUISANCE_RIDGE)])

    def _chosen_ridge(self, differences: Array, weight: Array, groups: Sequence[str]) -> float:
        """Return the penalty with the lowest loss on held-out groups; with too few groups, the middle candidate."""
        number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
        if number.max() + 1 < FOLDS:
            return RIDGES[len(RIDGES) // 2]
        losses = np.zeros(len(RIDGES))
        for fold in range(FOLDS):
            out = number % FOLDS == fold
            for place, ridge in enumerate(RIDGES):
                beta = fit_bradley_terry(differences[~out], self._penalty(ridge), weight[~out])
                losses[place] += weight[out] @ pair_losses(differences[out] @ beta)
        return RIDGES[int(losses.argmin())]


def _nuisance(raw: Array, lengths: Array, places: Array, count: int) -> dict[str, Array]:
    """Return the values that :meth:`TextRewardModel._matrix` subtracts and divides by: means per category (and overall,
    in the last row), slopes on length, and scales."""
    sizes = np.bincount(places, minlength=count)[:, None]

    def means(values: Array) -> Array:
        sums = np.zeros((count, values.shape[1]))
        np.add.at(sums, places, values)
        return np.concatenate([sums / sizes, values.mean(axis=0, keepdims=True)])

    average, length_average = means(raw), means(lengths)
    centred = lengths - length_average[places]
    slopes = np.linalg.lstsq(centred, raw - average[places], rcond=None)[0]
    residual = raw - average[places] - centred @ slopes
    scales = residual.std(axis=0)
    spread = lengths.std(axis=0)
    return {
        "means": average,
        "length_means": length_average,
        "slopes": slopes,
        "scales": np.where(scales > 1e-9, scales, 1.0),
        "length_scales": np.where(spread > 1e-9, spread, 1.0),
    }
