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
    """Behaviour for which items are retrieved, as named in the log."""
    behaviours: Literal["rotary", "added", "none"] = "rotary"
    """Encoding of behaviours: as factors of queries and keys (`rotary`), as vectors added to the item vectors
    (`added`), or not at all (`none`)."""
    diffusion: bool = True
    """True to sample the latent vector by the diffusion; False to use the encoder's latent vector."""
    as_released: tuple[Released, ...] = ()
    """Parts that follow the released code where it deviates from the paper. With `guidance`, a second, unconditional
    sample is drawn, starting from the conditional one, and is added to it, whereas the paper subtracts the
    unconditional prediction at each step. With `masking`, the encoder reads the behaviour of the masked item when
    sampling. With `rotary`, queries and keys are scaled after the rotation."""
    width: PositiveInt = 64
    """Width of item vectors and latent vectors."""
    layers: PositiveInt = 2
    """Number of blocks of the encoder."""
    heads: PositiveInt = 2
    """Number of attention heads of the encoder; the width of each head must be even."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the encoder."""
    masked: float = Field(default=0.2, gt=0, lt=1)
    """Share of the items that are masked in training; at least one item per history is masked."""
    hidden_behaviours: float = Field(default=0.1, ge=0, lt=1)
    """Share of the behaviours that are masked while the encoder is trained."""
    denoiser_blocks: PositiveInt = 2
    """Number of blocks of the denoiser."""
    shared_experts: PositiveInt = 1
    """Number of experts per block that are used for every behaviour."""
    own_experts: NonNegativeInt = 2
    """Number of experts per block for each behaviour."""
    steps: PositiveInt = 200
    """Number of diffusion steps."""
    sampler_steps: PositiveInt = 20
    """Number of diffusion steps that the sampler uses."""
    guidance: NonNegativeFloat = 1.0
    """Weight w of classifier-free guidance, which uses (1 + w) times the prediction given the behaviour minus w times
    the prediction without it; 0 disables the guidance."""
    dropped: float = Field(default=0.2, ge=0, lt=1)
    """Probability with which the behaviour is hidden from the diffusion in training. Guidance relies on this, because
    it also uses predictions without the behaviour."""
    negatives: NonNegativeInt = 1024
    """Number of negatives sampled per step; 0 computes the softmax over the whole catalogue instead."""
    popularity_power: float = Field(default=0.5, ge=0, le=1)
    """Items are sampled as negatives in proportion to their count to this power. The loss is corrected for the sampling
    probability."""
    batch: PositiveInt = 128
    """Number of histories per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW, in all three stages."""
    weight_decay: float = Field(default=1e-6, ge=0)
    """Decoupled weight decay."""
    epochs: PositiveInt = 100
    """Largest number of passes over the histories when training the encoder."""
    diffusion_epochs: PositiveInt = 100
    """Number of passes over the histories when training the diffusion."""
    head_epochs: PositiveInt = 20
    """Largest number of passes over the histories when training the head on sampled latents."""
    valid_users: PositiveInt = 5000
    """Largest number of randomly chosen validation users. The last interaction of such a user with the target behaviour
    is predicted at every check. This interaction and all later ones of the user are held out."""
    check_every: PositiveInt = 2
    """Number of passes between two checks."""
    patience: PositiveInt = 5
    """Number of consecutive checks without improvement of NDCG@10 after which the training of the encoder or head
    stops; the best weights are kept."""
    device: Device = "auto"
    """Device for training and encoding: `cpu`, `cuda`, or `auto`."""

    @model_validator(mode="after")
    def _fitting(self) -> BehaviourDiffusionSettings:
        if self.sampler_steps > self.steps:
            raise ValueError(
                f"sampler_steps must be at most steps, found sampler_steps = {self.sampler_steps} and steps = {self.steps}"
            )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 · heads, found width = {self.width} and heads = {self.heads}"
            )
        return self
