"""The configuration of :class:`taiji.alignment.ParetoGRPOTrainer`: TRL's, plus how the reward weights move."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import GRPOConfig

from taiji.core.errors import ConfigError
from taiji.nn.weighting_rules import RULES, RuleOptions

ESTIMATORS = ("same-batch", "cross-batch", "directional")


@dataclass
class ParetoGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with adaptive reward weights; every TRL option keeps its meaning.

    ``reward_weights`` are the initial weights (scaled to sum one), or the constant ones under ``weighting="fixed"``.
    """

    weighting: str = field(default="popo", metadata={"help": "Rule for the reward weights: " + ", ".join(RULES) + "."})
    popo_mode: str = field(
        default="robust",
        metadata={"help": "'robust' (averaged, clipped, with a floor) or 'paper' (raw exponentiated gradient)."},
    )
    preference: list[float] | None = field(
        default=None, metadata={"help": "Trade-off at which POPO shall end; None is equal weights."}
    )
    gram_estimator: str = field(
        default="cross-batch",
        metadata={
            "help": "'same-batch', 'cross-batch' (unbiased, two halves of the prompts) or 'directional' (cost independent of the number of rewards)."
        },
    )
    aggregation: str = field(
        default="trl",
        metadata={
            "help": "'trl': TRL's scalar advantage of the weighted rewards; 'linear': weighted sum of each reward's own advantage. With group scaling the latter loses the trade-off's curvature and runs to one reward; combine it with scale_rewards='none'."
        },
    )
    kl_in_indicator: bool = field(
        default=True,
        metadata={
            "help": "Whether beta * KL is part of every reward's loss when indicators are computed; outside, the end point is no longer that of equal weights."
        },
    )
    weight_step: float = field(
        default=0.1, metadata={"help": "kappa of the robust step (also the learning rate of 'uncertainty')."}
    )
    weight_clip: float = field(
        default=0.2, metadata={"help": "Largest |change of log w| a step, before normalisation."}
    )
    weight_floor: float = field(
        default=0.05,
        metadata={"help": "Share of every step's weights that is pulled to the preference (or to equal weights)."},
    )
    weight_average: float = field(
        default=0.9,
        metadata={"help": "Decay of the moving averages of the indicators and of the squared gradient norm."},
    )
    weight_warmup: int = field(
        default=0,
        metadata={"help": "Steps before gradient-based weights move; use a few with LoRA, whose B starts at zero."},
    )
    popo_eta: float = field(default=1.0, metadata={"help": "eta of the paper's update."})
    popo_mu: float = field(default=1.0, metadata={"help": "mu of the paper's update."})
    directional_step: float = field(
        default=1e-3,
        metadata={"help": "Finite-difference step relative to the parameters' norm; raise it to 1e-2 under bf16."},
    )
    token_weighting: str = field(
        default="none", metadata={"help": "'pepo' multiplies each token's advantage by its PEPO weight."}
    )
    pepo_alpha: float = field(default=0.05, metadata={"help": "PEPO's gate strength."})
    pepo_temperature: float = field(
        default=1.0, metadata={"help": "PEPO's softmax temperature (1 in the paper, 1.8 in its released scripts)."}
    )
    pepo_evidence: str = field(
        default=r"Item title: [^\n]*",
        metadata={"help": "Regular expression of the prompt's evidence; all prompt tokens where it finds nothing."},
    )
    pepo_as_released: bool = field(
        default=False,
        metadata={
            "help": "Let gradients flow through the token weights, as the published code does; reward rules and 'fixed' only."
        },
    )
    share_prefixes: bool = field(
        default=True,
        metadata={
            "help": "Compute a prompt once for all of its rollouts; same numbers up to float rounding. False is TRL's way, to the bit."
        },
    )

    def __post_init__(self) -> None:
        _one_of("weighting", self.weighting, tuple(RULES))
        _one_of("popo_mode", self.popo_mode, ("robust", "paper"))
        _one_of("gram_estimator", self.gram_estimator, ESTIMATORS)
        _one_of("aggregation", self.aggregation, ("trl", "linear"))
        _one_of("token_weighting", self.token_weighting, ("none", "pepo"))
        if self.weighting == "gdpo":
            self.multi_objective_aggregation = "normalize_then_sum"
        super().__post_init__()
        if self.source == "gradients" and self.weighting != "popo":
            self.gram_estimator = "same-batch"  # the peers are defined on the batch's own Gram matrix
        prompts = (self.generation_batch_size or 0) // (self.num_generations or 1)
        if self.source == "gradients" and self.gram_estimator != "same-batch" and prompts < 2:
            raise ConfigError(
                f"gram_estimator={self.gram_estimator!r} needs two prompts a generation batch, to compare independent halves.",
                found=f"{prompts} (num_generations={self.num_generations})",
                fix="raise per_device_train_batch_size or gradient_accumulation_steps, or set gram_estimator='same-batch'",
            )
        if self.pepo_as_released and self.token_weighting == "pepo" and self.source == "gradients":
            raise ConfigError(
                "pepo_as_released lets the weights depend on the parameters, which per-reward gradients do not support.",
                fix="use a reward rule or weighting='fixed'",
            )

    @property
    def source(self) -> str:
        """Input of the rule: "none", "rewards" or "gradients"."""
        return RULES[self.weighting].source

    @property
    def linear(self) -> bool:
        """Return whether advantages are normalised per reward and then weighted."""
        return self.aggregation == "linear"

    def rule_options(self) -> RuleOptions:
        """The options of the weight rule."""
        return RuleOptions(
            mode=self.popo_mode,
            preference=tuple(self.preference) if self.preference else None,
            initial=tuple(self.reward_weights) if self.reward_weights and self.source != "none" else None,
            rate=self.weight_step,
            clip=self.weight_clip,
            floor=self.weight_floor,
            average=self.weight_average,
            eta=self.popo_eta,
            mu=self.popo_mu,
            warmup=self.weight_warmup,
            seed=self.seed,
        )


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} has an unknown value.",
            where=f"ParetoGRPOConfig({name}=…)",
            expected=", ".join(map(repr, allowed)),
            found=repr(value),
        )
