"""Settings of a behaviour diffusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from taiji.core.component import Device
from taiji.models.retrieval.settings import RetrieverSettings

Released = Literal["guidance", "masking", "rotary"]


class BehaviourDiffusionSettings(RetrieverSettings):
    """Settings of :class:`taiji.models.retrieval.behaviour_diffusion.BehaviourDiffusion`."""

    target: str = "buy"
    """Behaviour to retrieve items for, as the log names it."""
    behaviours: Literal["rotary", "added", "none"] = "rotary"
    """Encoding of behaviours: as factors of queries and keys (`rotary`), as vectors added to the items' (`added`), or not at all (`none`)."""
    diffusion: bool = True
    """Sample the latent vector by the diffusion; otherwise use the encoder's."""
    as_released: tuple[Released, ...] = ()
    """Parts taken as in the released code, which deviates from the paper: `guidance` adds the unconditional sample, started at the conditional one,
    instead of subtracting the unconditional prediction at each step; `masking` shows the behaviour to the condition when sampling; `rotary` scales
    after the rotation."""
    width: PositiveInt = 64
    """Width of items and latent vectors."""
    layers: PositiveInt = 2
    """Blocks of the encoder."""
    heads: PositiveInt = 2
    """Heads of its attention, each of an even width."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the encoder."""
    masked: float = Field(default=0.2, gt=0, lt=1)
    """Share of the items that are masked in training, at least one per history."""
    hidden_behaviours: float = Field(default=0.1, ge=0, lt=1)
    """Share of the behaviours that are masked while the encoder is trained."""
    denoiser_blocks: PositiveInt = 2
    """Blocks of the diffusion's network."""
    shared_experts: PositiveInt = 1
    """Experts per block that all behaviours share."""
    own_experts: NonNegativeInt = 2
    """Experts per block for each behaviour."""
    steps: PositiveInt = 200
    """Steps of the diffusion."""
    sampler_steps: PositiveInt = 20
    """Diffusion steps that the sampler takes."""
    guidance: NonNegativeFloat = 1.0
    """w of classifier-free guidance: (1 + w) times the prediction given the behaviour minus w times that without; 0 turns it off."""
    dropped: float = Field(default=0.2, ge=0, lt=1)
    """Probability of hiding the behaviour from the diffusion in training, which guidance needs."""
    negatives: NonNegativeInt = 1024
    """Negatives sampled per step in place of the whole catalogue; 0 computes the full softmax."""
    popularity_power: float = Field(default=0.5, ge=0, le=1)
    """Exponent of an item's count in its sampling probability; the loss is corrected for it."""
    batch: PositiveInt = 128
    """Histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of AdamW, in all three stages."""
    weight_decay: float = Field(default=1e-6, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 100
    """Upper limit on the encoder's passes."""
    diffusion_epochs: PositiveInt = 100
    """Passes of the diffusion."""
    head_epochs: PositiveInt = 20
    """Upper limit on the head's passes over sampled vectors."""
    valid_users: PositiveInt = 5000
    """Users, chosen at random, whose last interaction of the target behaviour is held out, with all after it, and predicted at every check."""
    check_every: PositiveInt = 2
    """Passes between checks."""
    patience: PositiveInt = 5
    """Checks without improvement of NDCG@10 after which encoder or head stop; the best weights are kept."""
    device: Device = "auto"
    """Device for training and encoding: `cpu`, `cuda`, or `auto`."""

    @model_validator(mode="after")
    def _fitting(self) -> BehaviourDiffusionSettings:
        if self.sampler_steps > self.steps:
            raise ValueError(
                f"the sampler takes sampler_steps = {self.sampler_steps} of steps = {self.steps}: at most all of them"
            )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"heads = {self.heads} of an even width share width = {self.width}: a multiple of twice them"
            )
        return self
