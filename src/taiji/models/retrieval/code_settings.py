"""Settings of the generative decoder over item codes."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.models.retrieval.settings import RetrieverSettings


class CodeDecoderSettings(RetrieverSettings):
    """Settings of :class:`taiji.models.retrieval.code_decoder.CodeDecoder`; the defaults are the plain decoder."""

    coder: str = "taiji.models.codes.residual_kmeans:ResidualKMeans"
    """Maker of the codes, as `package.module:Name` or by the name of an entry point in `taiji.coders`; not used where codes are given."""
    coder_settings: dict[str, Any] = Field(default={})
    """Settings of the coder, such as levels and sizes; those not given keep its defaults."""
    vector_width: PositiveInt = 64
    """Width of the item factors to encode if no vectors are given."""
    collisions: Literal["level", "list"] = "level"
    """Items with equal codes: distinguished by a further `level`, or left together as a `list` by popularity."""
    architecture: Literal["decoder", "encoder-decoder"] = "decoder"
    """History and codes in one causal sequence, or the history in a separate encoder that the codes attend to."""
    tokens: Literal["items", "codes"] = "items"
    """The history as one token per item, the sum of its codes' vectors, or as one token per code."""
    width: PositiveInt = 64
    """Width of codes and states."""
    layers: PositiveInt = 2
    """Decoder blocks, and encoder blocks where there is an encoder."""
    heads: PositiveInt = 2
    """Heads of the attention."""
    expansion: PositiveInt = 4
    """Hidden width of the feed-forward layers, as a multiple of `width`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout of embeddings and of all branches of a block."""
    beam: PositiveInt = 50
    """Prefixes kept per request; doubled until it holds as many items as requested."""
    negatives: NonNegativeInt = 0
    """Codes sampled per step and level in place of the whole level; 0 computes the full softmax."""
    batch: PositiveInt = 128
    """Histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 200
    """Upper limit on passes over the histories."""
    valid_users: PositiveInt = 1000
    """Users, chosen at random, whose last interaction is held out and retrieved at every check."""
    check_every: PositiveInt = 2
    """Passes between checks."""
    patience: PositiveInt = 5
    """Checks without improvement of NDCG@10 after which training stops; the best weights are kept."""
    query_key_norm: bool = False
    """RMS normalisation of queries and keys, with a gain, which bounds the attention's logits."""
    gate: bool = False
    """Attention output gated by the query token; the identity at first."""
    short: NonNegativeInt = 0
    """Last interactions that count as recent: for each token, a router chooses between the whole history and this part; 0 for no router."""
    experts: NonNegativeInt = 0
    """Experts in place of each feed-forward layer of the decoder; 0 for none."""
    chosen_experts: PositiveInt = 2
    """Experts used per token."""
    balance: float = Field(default=1e-3, ge=0)
    """Step size of the bias that balances the experts' load."""
    bucket: bool = False
    """From the second code on, read only the interactions that share the first code; all of them if none does."""
    multi_token: bool = False
    """Only the first code uses all blocks; each further code uses one block, from the previous state and code."""
    thinking: Literal["off", "filler", "latent"] = "off"
    """A step before each code, whose state is the next step's input (`latent`); `filler` takes as many steps without that input, as a control."""
    clusters: NonNegativeInt = 0
    """Clusters of each level's codes that the thinking states learn to predict; 0 for none."""
    cluster_weight: float = Field(default=0.1, ge=0)
    """Weight of the cluster loss."""
    long_history: NonNegativeInt = 0
    """Interactions before the last `history` ones, read through a compressor; 0 for none."""
    queries: PositiveInt = 8
    """Tokens that the compressor outputs."""
    time: bool = False
    """Add hour, weekday and time since the previous interaction to the history and to the request; the identity at first."""
    scenario: str = ""
    """Column of events and requests that names the scenario; each one gets a prompt, added to the first token. Empty for none."""
    pool: str = ""
    """Column of the item table that names the scenario in which an item may be shown; an item without one is shown in all. Empty for no such
    column."""
    skip_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss on exposures skipped before the target, which makes their first codes less probable."""
    skips: PositiveInt = 4
    """Number of last exposures without a click before the target that are used."""
    device: Device = "auto"
    """Device for training and decoding: `cpu`, `cuda`, or `auto`."""

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
