"""Settings of neural rankers, of the default ranker, and of external rankers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.core.settings import Settings

GROUP = "taiji.rankers"
"""Entry-point group of ranking models."""


TextUse = Literal["none", "projection", "experts", "select_align"]


class NeuralRankerSettings(Settings):
    """Settings that all neural rankers share: inputs, layer sizes and training. Each model adds its own settings."""

    model: str = "target_attention"
    """Ranking model: an entry point of the group `taiji.rankers`, or `package.module:Class`."""
    fields: tuple[str | dict[str, Any], ...] = ()
    """Additional inputs: `{field: category, column: store}`, `{field: number, column: load, side: context}`, or
    `package.module:Class` of your own field, with its arguments."""
    pair_fields: tuple[str | dict[str, Any], ...] | None = None
    """Fields for the agreement of a candidate with the user's history: `collaborative` from the log, and `text_match`
    from the item texts (not used if the items have no texts or no embedder is installed). An entry with arguments has
    the form `{field: text_match, embedder: minilm}`. `null` uses both fields from 20,000 training rows on. A second
    ranker is then trained without `text_match`, and this field is kept only if it lowers the loss on later rows by more
    than one standard error. `[]` uses no such field. `item_knowledge` adds the agreement in texts about items that a
    language model wrote (stage `item_knowledge`, or `{field: item_knowledge, table: PATH}`). `intents` adds the
    agreement with the user's predicted intents (`reasoning.prompts.answer: set`)."""
    tasks: tuple[str, ...] | None = None
    """Labels to learn; `null` uses all labels of the log."""
    task_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Weights of the task losses relative to each other. A task that is not listed keeps its weight from `labels:`
    (1 by default)."""
    device: Device = "auto"
    """Device for training and prediction: `cpu`, `cuda`, or `auto` (a GPU if there is one)."""
    dimension: PositiveInt = 8
    """Width of every embedding."""
    history: PositiveInt = 20
    """Number of most recent interactions of the user that the model sees."""
    neighbour: PositiveInt = 50
    """Number of most recent interactions of the look-alike user that the model sees."""
    hidden: tuple[PositiveInt, ...] = (128, 64)
    """Widths of the hidden layers."""
    bins: PositiveInt = 6
    """Number of pieces in the piecewise-linear encoding of each numeric feature."""
    min_count: PositiveInt = 2
    """Smallest number of occurrences before the end of training for an id to have its own embedding row. Rarer ids
    share hashed rows."""
    hashed_rows: PositiveInt = 1024
    """Number of hashed rows for rare and unseen ids, per vocabulary."""
    max_rows: PositiveInt = 1_000_000
    """Largest number of ids with their own embedding row, per vocabulary. If there are more ids, the most frequent ones
    have their own row, and the others share hashed rows."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the hidden layers."""
    epochs: PositiveInt = 1
    """Passes over the training rows. One is usually best on a large log: from the second pass on, a ranker memorises
    rows."""
    min_steps: PositiveInt = 500
    """Smallest number of training steps. On a small log, the number of passes is raised to reach it, but to at most
    ten."""
    batch: PositiveInt = 512
    """Rows per step."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Initial learning rate of AdamW, for all weights except user and item embeddings; it decays linearly to 0."""
    embedding_rate: float = Field(default=0.05, gt=0)
    """Initial learning rate of row-wise Adagrad, for user and item embeddings; it decays linearly to 0."""
    embedding_decay: float = Field(default=1e-3, ge=0)
    """Weight of the penalty on the squared norms of the user embedding and the item embedding of each row."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Decoupled weight decay of the dense weights."""
    valid_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the exposures, taken from the end of the period, that is held out for early stopping and calibration if
    no validation rows are given."""
    checks: PositiveInt = 6
    """Number of validation checks, evenly spread over the training; the weights of the best one are kept."""
    patience: PositiveInt = 2
    """Number of consecutive checks without improvement after which training stops."""

    split_weights: bool = True
    """Compute the part of the network that depends only on the request once per request instead of once per candidate
    (MaRI). The predictions do not change."""

    def passes(self, rows: float) -> int:
        """Return the number of passes over the given number of training rows.

        This is ``epochs``, raised to at most ten if ``min_steps`` requires it.
        """
        return max(self.epochs, min(math.ceil(self.min_steps * self.batch / max(rows, 1)), 10))


class RankerSettings(NeuralRankerSettings):
    """Settings of the default model, target attention with a wide path."""

    embeddings: bool = True
    """Use embeddings of user, item, categories, profile and history. Without them, a row is described only by its
    numbers, its context and its features (if any). These age better if the catalogue changes from month to month."""
    attention_heads: PositiveInt = 2
    """Number of heads of the target attention."""
    tower: Literal["shared", "mmoe"] = "shared"
    """Layers between inputs and outputs: `shared` (the same for all tasks) or `mmoe` (a gated mixture of experts)."""
    experts: PositiveInt = 3
    """Number of experts of the ``mmoe`` tower."""
    text: TextUse = "projection"
    """Module that reads the feature column ``vector``: `none`, `projection` (linear), or `experts` (as in KAR).
    `select_align` is the old name of `model: knowledge` (KSER) with one kind of knowledge and no null chunk."""
    text_width: PositiveInt = 16
    """Output width of the text module."""
    chunks: PositiveInt = 1
    """Number of knowledge chunks in each ``vector`` with `text: select_align`; `model: knowledge` has the setting
    `kinds` instead."""

    @model_validator(mode="after")
    def _alignment_has_fields(self) -> RankerSettings:
        if self.text == "select_align" and not self.embeddings:
            raise ValueError("select_align aligns text with embeddings, so embeddings must be true")
        return self


class ExternalSettings(Settings):
    """Settings of the calls of an external ranker."""

    batch: PositiveInt = 1024
    """Number of pairs per call."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for a response (HTTP)."""
    attempts: PositiveInt = 3
    """Total number of attempts (HTTP)."""
    pause: float = Field(default=0.5, ge=0)
    """Pause in seconds before the second attempt; it doubles for each further attempt (HTTP)."""
    version: str = ""
    """Version of the endpoint's model, if the responses do not contain a version (HTTP). If it changes, cached scores
    are computed again."""


class OwnRankerSettings(Settings):
    """Your own rankers instead of the built-in ones: `http://…`, a file `….onnx`, the folder of a saved ranker, or
    `module:function`."""

    reward: str | None = None
    """Ranker whose predictions are the rewards in alignment; `null` trains the built-in ranker on the earliest period.
    Your ranker must not have seen later labels."""
    evaluation: str | None = None
    """Ranker that evaluates the answers of language models; `null` uses the built-in ranker, trained on the third
    period of the log. It must differ from the reward ranker."""
    external: ExternalSettings = ExternalSettings()
