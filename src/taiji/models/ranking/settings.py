"""Settings of neural rankers, of the default ranker, and of a user's own ranker."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.core.settings import Settings

GROUP = "taiji.rankers"
"""Entry points of ranking models."""


TextUse = Literal["none", "projection", "experts", "select_align"]


class NeuralRankerSettings(Settings):
    """Inputs and training of every neural ranker; a model's own settings extend it."""

    model: str = "target_attention"
    """Ranking model: an entry point of the group `taiji.rankers`, or `package.module:Class`."""
    fields: tuple[str | dict[str, Any], ...] = ()
    """Further inputs: `{field: category, column: store}`, `{field: number, column: load, side: context}`, or `package.module:Class` of your own
    field, with its arguments."""
    pair_fields: tuple[str | dict[str, Any], ...] | None = None
    """Agreement of a candidate with its user's history: `collaborative` from the log, `text_match` from the items' texts (left out if they have none,
    or no embedder is installed); with arguments: `{field: text_match, embedder: minilm}`. `null` takes both from 20,000
    training rows on, `text_match` as one that must pay: a second ranker is trained without it, and the better one on later rows is kept. `[]` leaves both out.
    `item_knowledge` adds the same from a language model's texts about items (stage `item_knowledge`, or `{field: item_knowledge, table: PATH}`).
    `intents` adds the agreement with the intents of feature rows (`reasoning.prompts.answer: set`)."""
    tasks: tuple[str, ...] | None = None
    """Labels to learn; `null` takes every one that the log has."""
    task_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Weight of a task's loss relative to the others, if it is not 1."""
    device: Device = "auto"
    """Device for training and prediction: `cpu`, `cuda`, or `auto` (a GPU if there is one)."""
    dimension: PositiveInt = 8
    """Width of every embedding."""
    history: PositiveInt = 20
    """Most recent interactions of the user that the model sees."""
    neighbour: PositiveInt = 50
    """Most recent interactions of the look-alike user that the model sees."""
    hidden: tuple[PositiveInt, ...] = (128, 64)
    """Widths of the hidden layers."""
    bins: PositiveInt = 6
    """Pieces of the piecewise-linear encoding of each numeric feature."""
    min_count: PositiveInt = 2
    """An id seen fewer times than this before training ends shares a hashed row."""
    hashed_rows: PositiveInt = 1024
    """Hashed rows for rare and unseen ids, per vocabulary."""
    max_rows: PositiveInt = 1_000_000
    """Ids with a row of their own, per vocabulary; the most frequent ones get them, the rest are hashed."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the hidden layers."""
    epochs: PositiveInt = 1
    """Passes over the training rows. One is usually best on a large log: from the second on, a ranker memorises rows."""
    min_steps: PositiveInt = 500
    """Small data gets as many passes as needed for this many steps, ten at most."""
    batch: PositiveInt = 512
    """Rows per step."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """First step size of Adam, for all weights but user and item embeddings; it decays linearly to 0."""
    embedding_rate: float = Field(default=0.05, gt=0)
    """First step size of row-wise Adagrad, for user and item embeddings; it decays likewise."""
    embedding_decay: float = Field(default=1e-3, ge=0)
    """Penalty on the squared norms of each row's user and target embedding."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Decoupled weight decay of the dense weights."""
    valid_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the latest exposures, held out from training for early stopping and calibration when no validation frame is given."""
    checks: PositiveInt = 6
    """Validation checks, evenly spread over the training; the best one's weights are kept."""
    patience: PositiveInt = 2
    """Checks in a row without improvement after which training stops."""

    split_weights: bool = True
    """Compute the part of the network that depends only on the request once per request instead of once per candidate (MaRI). Predictions are the
    same."""

    def passes(self, rows: float) -> int:
        """Return the passes over a number of training rows: ``epochs``, or as many as ``min_steps`` needs, ten at most; more only memorise."""
        return max(self.epochs, min(math.ceil(self.min_steps * self.batch / max(rows, 1)), 10))


class RankerSettings(NeuralRankerSettings):
    """Settings of the default model, target attention with a wide path; defined here so that a configuration loads without torch."""

    embeddings: bool = True
    """Learn embeddings of user, item, categories, profile and history. Without them a row is described by its point-in-time numbers alone (and text
    features, if any): these age better where the catalogue changes from month to month."""
    attention_heads: PositiveInt = 2
    """Heads of the target attention."""
    tower: Literal["shared", "mmoe"] = "shared"
    """Sharing of layers between tasks: one shared bottom, or a gated mixture of experts."""
    experts: PositiveInt = 3
    """Experts of the ``mmoe`` tower."""
    text: TextUse = "projection"
    """Use of the ``vector`` column: ignored, a linear projection, or KAR-style experts. `select_align` is the old name of `model: knowledge`
    (KSER) with one kind of knowledge and no null chunk."""
    text_width: PositiveInt = 16
    """Width of the text module's output."""
    chunks: PositiveInt = 1
    """Knowledge chunks in one ``vector`` under `text: select_align`; `model: knowledge` has `kinds` in its place."""

    @model_validator(mode="after")
    def _alignment_has_fields(self) -> RankerSettings:
        if self.text == "select_align" and not self.embeddings:
            raise ValueError("select_align aligns text with embeddings: it needs embeddings = true")
        return self


class ExternalSettings(Settings):
    """Calls of a user's own ranker."""

    batch: PositiveInt = 1024
    """Pairs per call."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for an answer (HTTP)."""
    attempts: PositiveInt = 3
    """Attempts in total (HTTP)."""
    pause: float = Field(default=0.5, ge=0)
    """Seconds before the second attempt; doubles each time (HTTP)."""
    version: str = ""
    """Version of the endpoint's model, if its answers do not carry one (HTTP); cached scores depend on it."""


class OwnRankerSettings(Settings):
    """Your own rankers in place of the built-in ones: `http://…`, a file `….onnx`, or `module:function`."""

    reward: str | None = None
    """Ranker whose predictions reward alignment; `null` trains the built-in ranker on the earliest period. Yours must not have seen later labels."""
    evaluation: str | None = None
    """The evaluation ranker of the models' answers; `null` takes the built-in ranker of the ranker period. Must not be the ranker that rewards."""
    external: ExternalSettings = ExternalSettings()
