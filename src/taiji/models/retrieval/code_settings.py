"""Settings of the generative decoder over item codes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.models.retrieval.settings import RetrieverSettings


class CodeDecoderSettings(RetrieverSettings):
    """Settings of :class:`taiji.models.retrieval.code_decoder.CodeDecoder`. The defaults give the plain decoder."""

    coder: str = "taiji.models.codes.residual_kmeans:ResidualKMeans"
    """Coder that computes the item codes, as `package.module:Name` or as the name of an entry point in `taiji.coders`.
    It is not used if the decoder is given codes."""
    coder_settings: dict[str, Any] = Field(default={})
    """Settings of the coder, such as levels and sizes. Settings that are not listed keep their defaults."""
    vector_width: PositiveInt = 64
    """Width of the item factors that the coder encodes if the decoder is given no vectors."""
    collisions: Literal["level", "list"] = "level"
    """Treatment of items with equal codes. With `level`, a further level of codes distinguishes them; with `list`, they
    share a leaf as a list ordered by popularity."""
    architecture: Literal["decoder", "encoder-decoder"] = "decoder"
    """Architecture of the network. With `decoder`, history and codes form one causal sequence; with `encoder-decoder`,
    the codes attend to a separate encoder of the history."""
    tokens: Literal["items", "codes"] = "items"
    """Tokens of the history: one per item (the scaled sum of the vectors of its codes), or one per code."""
    width: PositiveInt = 64
    """Width of code vectors and states."""
    layers: PositiveInt = 2
    """Number of decoder blocks and, if there is an encoder, of encoder blocks."""
    heads: PositiveInt = 2
    """Number of attention heads."""
    expansion: PositiveInt = 4
    """Hidden width of the feed-forward layers, as a multiple of `width`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout rate of the embeddings and of all branches of each block."""
    beam: PositiveInt = 50
    """Number of code prefixes kept per request. It is doubled until it is at least the number of requested items."""
    negatives: NonNegativeInt = 0
    """Number of negative codes sampled per step and level; 0 computes the softmax over the whole level instead."""
    batch: PositiveInt = 128
    """Number of histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 200
    """Largest number of passes over the histories."""
    valid_users: PositiveInt = 1000
    """Largest number of randomly chosen users whose last interaction is held out and retrieved at every check."""
    check_every: PositiveInt = 2
    """Number of passes between two checks."""
    patience: PositiveInt = 5
    """Training stops after this number of consecutive checks in which neither NDCG@10 nor the validation loss improves.
    The weights with the best NDCG@10 are kept."""
    query_key_norm: bool = False
    """Normalise queries and keys by their root mean square, with a learnt gain. This bounds the attention logits."""
    gate: bool = False
    """Multiply the attention output by a gate that depends on the query token. The gate is initialised to the
    identity."""
    short: NonNegativeInt = 0
    """Number of last interactions that count as recent. For each token, a router chooses between attention to the whole
    history and attention to the recent interactions. 0 disables the router."""
    experts: NonNegativeInt = 0
    """Number of experts that replace each feed-forward layer of the decoder; 0 for none."""
    chosen_experts: PositiveInt = 2
    """Number of experts that each token uses."""
    balance: float = Field(default=1e-3, ge=0)
    """Step size of the bias that balances the load of the experts."""
    bucket: bool = False
    """From the second code on, attend only to interactions whose item has the decoded first code. If there are none,
    attend to all interactions."""
    multi_token: bool = False
    """Use all blocks for the first code only. Each further code is predicted by a single block from the previous state
    and code."""
    thinking: Literal["off", "filler", "latent"] = "off"
    """Additional thinking step before each code is predicted. With `latent`, the state of the thinking step is added to
    the input of the step that predicts. `filler` takes the same steps without passing the state on, as a control."""
    clusters: NonNegativeInt = 0
    """Number of clusters into which the codes of each level are divided. The thinking states learn to predict the
    cluster of the code; 0 for no clusters."""
    cluster_weight: float = Field(default=0.1, ge=0)
    """Weight of the cluster loss."""
    long_history: NonNegativeInt = 0
    """Number of older interactions, before the last `history` ones, that are read through a compressor; 0 for none."""
    queries: PositiveInt = 8
    """Number of tokens that the compressor outputs."""
    time: bool = False
    """Add encodings of the hour, the weekday and the time since the previous interaction to the tokens of the history
    and of the request. The encodings are initially zero."""
    scenario: str = ""
    """Column of events and requests that names the scenario; empty for no scenarios. Each scenario has a learnt prompt,
    which is added to the first token of the decoded codes."""
    pool: str = ""
    """Column of the item table that names the scenario in which an item may be shown. An item with an empty value may
    be shown in all scenarios. If this setting is empty, all items may be shown in all scenarios."""
    skip_weight: float = Field(default=0.0, ge=0)
    """Weight of a loss that lowers the probability of the first codes of exposures that were skipped before the
    target."""
    skips: PositiveInt = 4
    """Largest number of skipped exposures (without a click) used per target. These are the last ones before the target
    that were shown at or after the time of the user's previous interaction."""
    device: Device = "auto"
    """Device for training and decoding: `cpu`, `cuda`, or `auto`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of 2 · heads, found {self.width} and {self.heads} heads")
        if self.experts and self.chosen_experts > self.experts:
            raise ValueError(f"chosen_experts must be at most experts, found {self.chosen_experts} and {self.experts}")
        if self.multi_token and self.thinking != "off":
            raise ValueError(
                "thinking needs a pass through all blocks for each code, but multi_token skips it; choose one of the two"
            )
        if self.clusters and self.thinking != "latent":
            raise ValueError(f"with clusters, thinking must be latent, found {self.thinking}")
        if self.pool and not self.scenario:
            raise ValueError("pool needs scenario, the column of requests with which the pool of an item is compared")
        return self
