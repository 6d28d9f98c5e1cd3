"""Settings of the generative decoder over item codes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.models.retrieval.settings import RetrieverSettings


class CodeDecoderSettings(RetrieverSettings):
    """Settings of :class:`taiji.models.retrieval.code_decoder.CodeDecoder`; without options it is the plain decoder."""

    coder: str = "taiji.models.codes.residual_kmeans:ResidualKMeans"
    """Maker of the codes, as `package.module:Name` or by the name of an entry point in `taiji.coders`; not used where codes are given."""
    coder_settings: dict[str, Any] = Field(default={})
    """Settings of the coder: levels, sizes, whatever it has; the others are its defaults."""
    vector_width: PositiveInt = 64
    """Width of the item factors that are coded where no vectors are given."""
    collisions: Literal["level", "list"] = "level"
    """Items with equal codes: told apart by a further `level`, or left together as a `list` by popularity."""
    architecture: Literal["decoder", "encoder-decoder"] = "decoder"
    """History and codes in one causal sequence, or the history in an encoder of its own that the codes attend to."""
    tokens: Literal["items", "codes"] = "items"
    """The history as one token per item, the sum of its codes' vectors, or as one token per code."""
    width: PositiveInt = 64
    """Width of codes and states."""
    layers: PositiveInt = 2
    """Decoder blocks, and encoder blocks where there is an encoder."""
    heads: PositiveInt = 2
    """Heads of the attention."""
    expansion: PositiveInt = 4
    """Hidden width of the feed-forward layers over `width`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout of embeddings and of all branches of a block."""
    beam: PositiveInt = 50
    """Prefixes kept per request; doubled until it holds as many as the items that are asked for."""
    negatives: NonNegativeInt = 0
    """Codes drawn per step and level that stand for the level; 0 computes the full softmax."""
    batch: PositiveInt = 128
    """Histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 200
    """Passes over the histories at most."""
    valid_users: PositiveInt = 1000
    """Users, chosen at random, whose last interaction is kept out of training and retrieved at every check."""
    check_every: PositiveInt = 2
    """Passes between checks."""
    patience: PositiveInt = 5
    """Checks without improvement of NDCG@10 after which training stops; the best weights are kept."""
    query_key_norm: bool = False
    """Root-mean-square norm with a gain of queries and keys, which bounds the attention's logits."""
    gate: bool = False
    """Attention gated by the token that asks; the identity at first."""
    short: NonNegativeInt = 0
    """Last interactions that count as recent: a router takes all of the history or this part of it for each token; 0 for no router."""
    experts: NonNegativeInt = 0
    """Experts in place of each feed-forward layer of the decoder; 0 for none."""
    chosen_experts: PositiveInt = 2
    """Experts that each token takes."""
    balance: float = Field(default=1e-3, ge=0)
    """Step of the bias that evens the experts' load."""
    bucket: bool = False
    """From the second code on, only those parts of the history are read that share the first code; all of it where none does."""
    multi_token: bool = False
    """Only the first code comes from all blocks; each further one from one block, out of the state and the code before it."""
    thinking: Literal["off", "filler", "latent"] = "off"
    """A step before each code, whose state is the next step's input (`latent`); `filler`: as many steps without that, as a control."""
    clusters: NonNegativeInt = 0
    """Clusters of each level's codes that the states of the thinking steps are to tell; 0 for none."""
    cluster_weight: float = Field(default=0.1, ge=0)
    """Weight of the clusters in the loss."""
    long_history: NonNegativeInt = 0
    """Interactions before the last `history` ones that are read through a compressor; 0 for none."""
    queries: PositiveInt = 8
    """Tokens that the compressor makes of them."""
    time: bool = False
    """Hour, weekday and gap to the interaction before, added to the history and to the request; nothing is added at first."""
    scenario: str = ""
    """Column of events and requests that names the scenario; each one gets a prompt, added to the first token. Empty for none."""
    pool: str = ""
    """Column of the item table that names the scenario in which an item may be shown; where it is empty, in all. Empty for no such column."""
    skip_weight: float = Field(default=0.0, ge=0)
    """Weight in the loss of what was shown and not taken before the target: its first code is to be improbable."""
    skips: PositiveInt = 4
    """Last exposures without a click before the target that count."""
    device: Device = "auto"
    """Where it trains and decodes: `cpu`, `cuda`, or `auto`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of 2 · heads, found {self.width} and {self.heads} heads")
        if self.experts and self.chosen_experts > self.experts:
            raise ValueError(f"chosen_experts must be at most experts, found {self.chosen_experts} of {self.experts}")
        if self.multi_token and self.thinking != "off":
            raise ValueError("thinking needs a pass through all blocks per code, which multi_token saves; choose one")
        if self.clusters and self.thinking != "latent":
            raise ValueError(f"clusters supervise thinking: latent, found thinking: {self.thinking}")
        if self.pool and not self.scenario:
            raise ValueError("pool needs scenario, the column of requests that an item's pool is compared with")
        return self
