"""LCU (arXiv 2504.01602): prediction of the time T that a user spends in the comments of an item, from the texts of the
comments.

A logit p learns the label "stayed at all" (T > 0) with weight T if the user stayed and 1 otherwise; a companion logit c
learns the same label without weights. At the optimum, e^p = E[T] / P(T = 0) and σ(c) = P(T > 0). Therefore, exactly,

    E[T] = e^p (1 − σ(c)).

The odds e^p alone would overestimate E[T] by the factor 1 / P(T = 0). Two further heads over the comments learn which
comment is clicked (on rows with a click) and the order of the comments by popularity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional

from taiji.core.errors import ConfigError, ResourceError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, FieldSet, Layout
from taiji.data.fields import Field as InputField
from taiji.data.fields import NumbersField, Rows
from taiji.data.item_text import item_texts
from taiji.data.tasks import Task
from taiji.language.item_vectors import chosen_embedder, embedded
from taiji.models.ranking.dcn import CrossLayer
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.models.ranking.text_space import TextSpace
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.losses import MultitaskLoss, known_mean, output_columns
from taiji.nn.towers import layers

Array = NDArray[Any]
FIELD = "comments"
"""Name of the field that reads comments."""


class CommentDwellSettings(NeuralRankerSettings):
    """Shape and loss weights of the LCU ranker."""

    model: str = "comment_dwell"
    stay: str = "comment_seconds"
    """Label of kind `duration` that is predicted; it is 0 if the comments were not opened."""
    clicked: str = "comment_place"
    """Label with the position (0, 1, …) of the clicked comment; null if no comment was clicked. Give this label the
    weight 0 in `labels:`."""
    comments: str = "comments"
    """Column of the item table that holds a list of comment texts for each item."""
    most: PositiveInt = 6
    """Number of comments read per item."""
    embedder: str = "auto"
    """Embedder of titles and comments: `auto` (MiniLM if it is installed, else WordLlama), `minilm`, `wordllama`, or
    the name or folder of another text encoder."""
    text_columns: PositiveInt = 16
    """Number of principal components of the text vectors; never more than one per twenty texts."""
    text_width: PositiveInt = 10
    """Width to which each text is projected."""
    text_heads: PositiveInt = 2
    """Number of heads of the attention between reader, title and comments; must divide `text_width`."""
    cross_layers: PositiveInt = 3
    """Number of cross layers over all inputs."""
    click_weight: float = Field(default=1e-3, ge=0, allow_inf_nan=False)
    """Weight λ₁ of the loss of the clicked comment."""
    popularity_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Weight λ₂ of the loss of the order of comments by popularity."""


def log_expected_stay(stay: torch.Tensor, companion: torch.Tensor) -> torch.Tensor:
    """Return log E[T] = p + log(1 − σ(c)).

    Args:
        stay: (B,) logits p.
        companion: (B,) logits c.
    """
    return stay + functional.logsigmoid(-companion)


def stay_loss(stay: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """Return the weighted logistic loss of each row, (B,), for the label "stayed at all" with weight T if the user
    stayed and 1 otherwise.

    Args:
        stay: (B,) logits p.
        seconds: (B,) times T ≥ 0.
    """
    return torch.where(seconds > 0, seconds * functional.softplus(-stay), functional.softplus(stay))


def click_loss(scores: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the clicked comment over the rows with a click; 0 if there are none.

    Args:
        scores: (B, C) scores of the comments.
        place: (B,) position of the clicked comment; NaN without a click. A position of C or more counts as no click.
    """
    known = torch.isfinite(place) & (place < scores.shape[1])
    chosen = torch.nan_to_num(place).clamp(0, scores.shape[1] - 1).long()
    losses = -torch.log_softmax(scores, dim=1).gather(1, chosen.unsqueeze(1)).squeeze(1)
    return (losses * known).sum() / known.sum().clamp_min(1)


def order_loss(scores: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
    """Return the mean ListMLE loss (Xia et al. 2008) of the order of the comments by popularity.

    The mean is over comments with positive popularity. Comments with popularity 0 have to come after these, in any
    order. The loss is 0 if all popularities are 0.

    Args:
        scores: (B, C) raw scores; the likelihood takes their softmax.
        popularity: (B, C) popularity of the comments, ≥ 0.
    """
    order = popularity.argsort(dim=1, descending=True, stable=True)
    ordered, counted = scores.gather(1, order), popularity.gather(1, order) > 0
    rest = torch.logcumsumexp(ordered.flip(1), dim=1).flip(1)
    return ((rest - ordered) * counted).sum() / counted.sum().clamp_min(1)


class CommentTexts(NumbersField):
    """Field with the log-counts of clicks on an item's comments before the time of a row, and with the principal
    components of the item's title and comments.

    Args:
        comments: column of the item table, a list of texts.
        clicked: column of events with the position of the clicked comment.
        most: number of comments read per item.
        embedder: embedder of the texts, see :func:`taiji.language.item_vectors.chosen_embedder`.
        columns: largest number of components per text.
    """

    learnt = ("width",)

    def __init__(self, comments: str, clicked: str, most: int = 6, embedder: str = "auto", columns: int = 16) -> None:
        super().__init__(FIELD, "pair")
        self.comments, self.clicked, self.most = comments, clicked, most
        self.embedder, self.columns, self.width = embedder, columns, 0
        self.options = {
            "comments": comments, "clicked": clicked, "most": most, "embedder": embedder, "columns": columns
        }  # fmt: skip
        self.space = TextSpace.empty()
        self._bound: tuple[pl.DataFrame, Array] | None = None
        self._clicks: tuple[pl.DataFrame, list[Array], Array] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values: one count per comment, then the components of the title and of each comment."""
        texts = (f"{self.name}_{text}_{part}" for text in range(1 + self.most) for part in range(self.width))
        return (*(f"{self.name}_clicks_{place}" for place in range(self.most)), *texts)

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Compute the principal directions of the catalogue's titles and comments."""
        self._bound = None
        if self.comments not in dataset.items.columns or dataset.items[self.comments].dtype != pl.List(pl.String):
            raise ConfigError(
                "The items have no comments.",
                where=f"ranking.comments, column {self.comments} of the items",
                expected="a list of texts for each item",
                found=str(dataset.items.schema.get(self.comments, "no such column")),
                fix="add the comments to the item table, or choose another ranking.model",
            )
        vectors = self._vectors(dataset)
        self.space = TextSpace.fit(vectors.reshape(-1, vectors.shape[2]), self.columns)
        self.width = self.space.components.shape[1] if self.space.width else 0

    def matrix(self, rows: Rows) -> Array:
        """Return the values for each row, (N, F) float32."""
        return np.concatenate([self.clicks(rows), self._placed(rows.dataset)[rows.item]], axis=1).astype(np.float32)

    def clicks(self, rows: Rows) -> Array:
        """Return log(1 + clicks) for each comment of the row's item, counting clicks strictly before the row's time,
        (N, most)."""
        events = rows.dataset.events
        if self._clicks is None or self._clicks[0] is not events:
            found = events.select("item", "time", self.clicked) if self.clicked in events.columns else events.clear()
            times = np.unique(events["time"].to_numpy())
            keys = []
            for place in range(self.most):
                mine = found.filter(pl.col(self.clicked) == place) if len(found) else found
                rank = np.searchsorted(times, mine["time"].to_numpy())
                keys.append(np.sort(mine["item"].to_numpy().astype(np.int64) * (len(times) + 1) + rank))
            self._clicks = (events, keys, times)
        _, keys, times = self._clicks
        first = rows.item * (len(times) + 1)
        now = first + np.searchsorted(times, rows.time)
        counts = [np.searchsorted(known, now) - np.searchsorted(known, first) for known in keys]
        return np.log1p(np.stack(counts, axis=1))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays of the text space, including the principal directions."""
        return self.space.tensors()

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`config` and :meth:`tensors`."""
        super().restore(config, tensors)
        self.space = TextSpace.restore(tensors)

    def _placed(self, dataset: Dataset) -> Array:
        """Return the components of each item's title and comments, (n_items, (1 + most) * width)."""
        if self._bound is None or self._bound[0] is not dataset.items:
            vectors = self._vectors(dataset)
            flat = vectors.reshape(-1, vectors.shape[2])
            placed = self.space.place(flat)[1] if self.width else np.zeros((len(flat), 0), dtype=np.float32)
            self._bound = (dataset.items, placed.reshape(len(vectors), -1))
        return self._bound[1]

    def _vectors(self, dataset: Dataset) -> Array:
        """Return the vectors of each item's title and comments, (n_items, 1 + most, d); zero for a missing text."""
        name = chosen_embedder(self.embedder)
        if name is None:
            raise ResourceError(
                "No embedder is installed.", where="ranking.embedder", fix="install wordllama, or the extra `llm`"
            )
        said = dataset.items[self.comments].to_list() if self.comments in dataset.items.columns else []
        said = said or [[]] * dataset.n_items
        texts = [
            [title, *[text or "" for text in (own or [])[: self.most]]] for title, own in zip(item_texts(dataset), said)
        ]
        whole = [row + [""] * (1 + self.most - len(row)) for row in texts]
        found = embedded(name, [text for row in whole for text in row])
        return found.reshape(len(whole), 1 + self.most, -1)


class CommentDwellNetwork(Network[CommentDwellSettings]):
    """Network in which reader, title and comments attend to each other, followed by cross layers and a tower over all
    inputs (LCU's DCN).

    The first output columns are those of the tasks, with log(1 + E[T]) for the stay. The logits p and c follow, then
    the click scores, the popularity scores and the log-counts of earlier clicks of all comments. The log-counts are
    copied from the inputs, because the loss needs them.

    Args:
        layout: layout of the inputs; its last numbers must be the values of :class:`CommentTexts`.
        outputs: total number of outputs of all tasks.
        settings: settings of the model.
        stay: index of the output column for the stay.
    """

    def __init__(self, layout: Layout, outputs: int, settings: CommentDwellSettings, stay: int) -> None:
        most = settings.most
        super().__init__(layout, outputs + 2 + 3 * most, settings)
        self.stay, self.others = stay, layout.numbers.index(f"{FIELD}_clicks_0")
        self.parts = (len(layout.numbers) - self.others - most) // (1 + most)
        self.inputs = FlatInputs(
            replace(layout, numbers=layout.numbers[: self.others]), settings.dimension, settings.bins, pooled=True
        )
        width = settings.text_width
        self.project = nn.Linear(self.parts, width)
        self.reader = nn.Linear(settings.dimension, width)
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width, bias=False) for _ in range(4))
        total = self.inputs.out_width + (2 + most) * width
        self.crosses = nn.ModuleList(CrossLayer(total) for _ in range(settings.cross_layers))
        self.tower = layers(total, settings.hidden, settings.dropout)
        self.heads = nn.Linear(total + settings.hidden[-1], outputs + 1)
        self.comment_heads = nn.Linear(width, 2)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return outputs, (B, O)."""
        return self.penalised(batch)[0]

    def told(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the components of title and comments (B, 1 + most, parts) from the numbers (B, F)."""
        return numbers[:, self.others + self.settings.most :].reshape(-1, 1 + self.settings.most, self.parts)

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return outputs (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        numbers, most = batch["numbers"], self.settings.most
        flat, _, penalty = self.inputs(batch | {"numbers": numbers[:, : self.others]})
        reader = self.reader(self.inputs.embeddings.users(batch)).unsqueeze(1)
        tokens = self.attended(torch.cat([reader, self.project(self.told(numbers))], dim=1))
        joined = torch.cat([flat, tokens.flatten(1)], dim=1)
        crossed = joined
        for cross in self.crosses:
            crossed = cross(joined, crossed)
        found = self.heads(torch.cat([crossed, self.tower(joined)], dim=1))
        own, companion = found[:, :-1], found[:, -1:]
        stay = own[:, self.stay : self.stay + 1]
        expected = functional.softplus(log_expected_stay(stay, companion))  # log(1 + E[T])
        comments = self.comment_heads(tokens[:, 2:])
        parts = [own[:, : self.stay], expected, own[:, self.stay + 1 :], stay, companion]
        popularity = numbers[:, self.others : self.others + most]
        return torch.cat([*parts, comments[:, :, 0], comments[:, :, 1], popularity], dim=1), penalty

    def attended(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the tokens (B, n, width) plus their attention over all tokens, (B, n, width)."""
        rows, count, width = tokens.shape
        heads = self.settings.text_heads

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(rows, count, heads, width // heads).transpose(1, 2)

        query, key, value = split(self.query(tokens)), split(self.key(tokens)), split(self.value(tokens))
        weights = torch.softmax(query @ key.transpose(2, 3) * (width // heads) ** -0.5, dim=3)
        return tokens + self.mixed((weights @ value).transpose(1, 2).reshape(rows, count, width))  # type: ignore[no-any-return]

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(replace(arrays, numbers=arrays.numbers[:, : self.others]))


class CommentDwellLoss(MultitaskLoss):
    """Sum of four losses: of the stay with its companion logit, of the clicked comments, of the order of the comments,
    and of all other tasks.

    Args:
        tasks: tasks of the ranker.
        settings: names of the labels, and weights of the losses.
    """

    def __init__(self, tasks: Sequence[Task], settings: CommentDwellSettings) -> None:
        self.settings = settings
        self.stay_weight = next(task.weight for task in tasks if task.name == settings.stay)
        apart = (settings.stay, settings.clicked)
        others = [task.model_copy(update={"weight": 0.0}) if task.name in apart else task for task in tasks]
        self.labels, self._parts = (), []
        if any(task.weight for task in others):
            super().__init__(others)
        self.outputs, self.column = sum(task.outputs for task in tasks), output_columns(tasks)[settings.stay].start
        self.clicks = settings.clicked if any(task.name == settings.clicked for task in tasks) else None
        self.labels = (*self.labels, settings.stay, *([self.clicks] if self.clicks else []))

    def stay_terms(self, outputs: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
        """Return the loss of the stay and of its companion for each row, (B,)."""
        stay, companion = outputs[:, self.outputs], outputs[:, self.outputs + 1]
        opened = (seconds > 0).to(outputs.dtype)
        return stay_loss(stay, seconds) + functional.binary_cross_entropy_with_logits(
            companion, opened, reduction="none"
        )

    def __call__(
        self, outputs: torch.Tensor, labels: Mapping[str, torch.Tensor], group: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, a scalar; for the arguments, see :class:`taiji.nn.losses.MultitaskLoss`."""
        total, s = super().__call__(outputs, labels, group), self.settings
        clicks, order, popularity = outputs[:, self.outputs + 2 :].split(s.most, dim=1)
        known, seconds = torch.isfinite(labels[s.stay]), torch.nan_to_num(labels[s.stay])
        terms = self.stay_terms(outputs, seconds)
        total = total + self.stay_weight * known_mean(terms, known.to(terms.dtype))
        if self.clicks:
            total = total + s.click_weight * click_loss(clicks, labels[self.clicks])
        return total + s.popularity_weight * order_loss(order, popularity)


class CommentDwellRanker(Ranker):
    """Ranker that predicts the time spent in the comments; see :class:`CommentDwellNetwork`."""

    Settings = CommentDwellSettings
    network_class = CommentDwellNetwork
    settings: CommentDwellSettings

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[InputField]:
        """Return the default fields, followed by the comments."""
        s = self.settings
        texts = CommentTexts(s.comments, s.clicked, s.most, s.embedder, s.text_columns)
        return [*super().fields(dataset, columns), texts]

    def learnt_tasks(self, dataset: Dataset) -> tuple[Task, ...]:
        """Return the tasks to learn, among them the stay.

        Raises:
            ConfigError: the log has no label for the stay.
        """
        tasks = super().learnt_tasks(dataset)
        if not any(task.name == self.settings.stay and task.kind == "duration" for task in tasks):
            raise ConfigError(
                "The log has no label for the time spent in the comments.",
                where="ranking.stay",
                expected=f"a label {self.settings.stay} of kind duration",
                found=", ".join(f"{task.name} ({task.kind})" for task in tasks),
                fix="declare it under `labels:` in the mapping, or name a different label",
            )
        return tasks

    def check(self, layout: Layout) -> None:
        """Raise ConfigError if the number of attention heads does not divide the width of a text."""
        if self.settings.text_width % self.settings.text_heads:
            raise ConfigError(
                "The number of heads does not divide the width of a text.",
                where="ranking.text_heads",
                expected=f"a divisor of {self.settings.text_width}",
                found=str(self.settings.text_heads),
            )

    def make_network(self) -> CommentDwellNetwork:
        """Return a new network, which is given the index of the output column for the stay."""
        stay = output_columns(self.tasks)[self.settings.stay].start
        return self.network_class(self.layout, sum(task.outputs for task in self.tasks), self.settings, stay)

    def build(
        self, dataset: Dataset, fieldset: FieldSet, tasks: Sequence[Task], device: str | None = None
    ) -> CommentDwellRanker:
        """Create the network and bind it to a dataset."""
        super().build(dataset, fieldset, tasks, device)
        self.loss = CommentDwellLoss(self.tasks, self.settings)
        return self
