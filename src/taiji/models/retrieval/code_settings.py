"""Settings of the generative decoder over item codes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.models.retrieval.settings import RetrieverSettings


class CodeDecoderSettings(RetrieverSettings):
    """Settings of :class:`taiji.models.retrieval.code_decoder.CodeDecoder`. The defaults give the plain decoder."""

    coder: str = "taiji.models.codes.residual_kmeans:ResidualKMeans"
    """Coder, as `package.module:Name` or as the name of an entry point in `taiji.coders`; not used if codes are
    given."""
    coder_settings: dict[str, Any] = Field(default={})
    """Settings of the coder, such as levels and sizes; the others keep their defaults."""
    vector_width: PositiveInt = 64
    """Width of the item factors that are encoded if no vectors are given."""
    collisions: Literal["level", "list"] = "level"
    """Items with equal codes: a further `level` distinguishes them, or they share a leaf as a `list` ordered by
    popularity."""
    architecture: Literal["decoder", "encoder-decoder"] = "decoder"
    """Architecture: history and codes in one causal sequence, or the history in a separate encoder to which the codes
    attend."""
    tokens: Literal["items", "codes"] = "items"
    """Tokens of the history: one per item (the sum of its code vectors), or one per code."""
    width: PositiveInt = 64
    """Width of code vectors and states."""
    layers: PositiveInt = 2
    """Number of decoder blocks and, if there is an encoder, of encoder blocks."""
    heads: PositiveInt = 2
    """Number of attention heads."""
    expansion: PositiveInt = 4
    """Hidden width of the feed-forward layers, as a multiple of `width`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout of embeddings and of all branches of a block."""
    beam: PositiveInt = 50
    """Number of prefixes kept per request; it is doubled until it contains as many items as requested."""
    negatives: NonNegativeInt = 0
    """Number of codes sampled per step and level instead of the whole level; 0 computes the full softmax."""
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
    """Normalise queries and keys by their RMS, with a gain, which bounds the logits of the attention."""
    gate: bool = False
    """Gate the attention output by the query token; the gate is initialised to the identity."""
    short: NonNegativeInt = 0
    """Number of last interactions that count as recent. For each token, a router chooses between attention to the whole
    history and to the recent part; 0 for no router."""
    experts: NonNegativeInt = 0
    """Number of experts that replace each feed-forward layer of the decoder; 0 for none."""
    chosen_experts: PositiveInt = 2
    """Number of experts used per token."""
    balance: float = Field(default=1e-3, ge=0)
    """Step size of the bias that balances the load of the experts."""
    bucket: bool = False
    """From the second code on, attend only to interactions whose item has the decoded first code, or to all of them if
    there are none."""
    multi_token: bool = False
    """Use all blocks only for the first code; each further code is predicted by one block from the previous state and
    code."""
    thinking: Literal["off", "filler", "latent"] = "off"
    """Additional step before each code is predicted. With `latent`, the state of this step is part of the input of the
    step that predicts; `filler` takes as many steps without passing the state on, as a control."""
    clusters: NonNegativeInt = 0
    """Number of clusters of each level's codes that the thinking states learn to predict; 0 for none."""
    cluster_weight: float = Field(default=0.1, ge=0)
    """Weight of the cluster loss."""
    long_history: NonNegativeInt = 0
    """Number of interactions before the last `history` ones that are read through a compressor; 0 for none."""
    queries: PositiveInt = 8
    """Number of tokens that the compressor outputs."""
    time: bool = False
    """Add encodings of the hour, the weekday and the time since the previous interaction to the tokens of the history
    and of the request. The encodings are initially zero."""
    scenario: str = ""
    """Column of events and requests that names the scenario. Each scenario has a prompt, which is added to the first
    token. Empty for none."""
    pool: str = ""
    """Column of the item table that names the scenario in which an item may be shown; an item with an empty value may
    be shown in all. Without a name, all items may be shown in all scenarios."""
    skip_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss on exposures that were skipped before the target. This loss lowers the probability of their
    first codes."""
    skips: PositiveInt = 4
    """Largest number of skipped exposures (without a click) used per target: the last ones before the target, among
    those shown at the time of the user's previous interaction or later."""
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
