"""Configuration of :class:`taiji.alignment.ParetoGRPOTrainer`: TRL's options, plus options of the reward weighting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from trl import GRPOConfig

from taiji.alignment.advantages import LEAVE_ONE_OUT
from taiji.alignment.scales import RewardScale
from taiji.core.errors import ConfigError
from taiji.language.prefix_generate import Draw
from taiji.nn.weighting_rules import RULES, RuleOptions

ESTIMATORS = ("same-batch", "cross-batch", "directional")


@dataclass
class ParetoGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with adaptive reward weights; every TRL option keeps its meaning.

    ``scale_rewards`` has one additional value, ``"leave-one-out"``: advantages as in RLOO, r minus the mean of the
    prompt's other rollouts.

    ``reward_weights`` are the constant weights under ``weighting="fixed"``, and the starting point of adaptive rules
    (ones, if none are given). Rules change the shares of the weights but keep their total. Some rules change the shares
    before the first step. A reward of weight zero is only logged; a negative weight makes the reward a penalty.
    """

    weighting: str = field(default="popo", metadata={"help": "Rule for the reward weights: " + ", ".join(RULES) + "."})
    popo_mode: str = field(
        default="robust",
        metadata={
            "help": "'robust' (averaged, clipped, with a minimum weight) or 'paper' (raw exponentiated gradient)."
        },
    )
    preference: list[float] | None = field(
        default=None,
        metadata={
            "help": "Trade-off that POPO should reach: one positive number per reward, in the order of the reward functions; only their ratios matter. None for equal weights."
        },
    )
    gram_estimator: str = field(
        default="cross-batch",
        metadata={
            "help": "'same-batch', 'cross-batch' (unbiased, two halves of the prompts) or 'directional' (cost independent of the number of rewards)."
        },
    )
    aggregation: str | None = field(
        default=None,
        metadata={
            "help": "'trl': the update uses TRL's scalar advantage of the weighted rewards. 'common': it uses the weighted sum of per-reward advantages, where the rewards of a group are divided by one scalar that does not depend on the weights. 'linear': each reward is divided by its own standard deviation; this loses the curvature of the trade-off, and training converges to a single reward. With scale_rewards='none', rewards are not divided, and 'linear' does not have this problem. None is 'common' for rules that use gradients and 'trl' for the others."
        },
    )
    kl_in_indicator: bool = field(
        default=True,
        metadata={
            "help": "Include beta * KL in each reward's loss when the indicators are computed. A reward's indicator, by which POPO changes the weights, is the inner product of the gradient of this loss with the sum of all rewards' gradients. With False, the point at which POPO ends need not be stationary for the sum of the losses with equal weights."
        },
    )
    weight_step: float = field(
        default=0.1,
        metadata={
            "help": "Step size (kappa) of POPO's 'robust' update and of 'feedback', and learning rate of 'uncertainty'."
        },
    )
    weight_clip: float = field(
        default=0.2, metadata={"help": "Largest |change of log w| per step, before normalisation."}
    )
    weight_floor: float = field(
        default=0.05,
        metadata={
            "help": "Share by which the weights are pulled towards the preference (or equal weights) in each step."
        },
    )
    weight_average: float = field(
        default=0.9,
        metadata={"help": "Decay of the moving averages of the indicators and of the squared gradient norm."},
    )
    weight_every: int = field(
        default=1,
        metadata={
            "help": "Number of steps from one observation of a rule that reads gradients to the next. Between them the weights stay constant, and a step takes one backward pass, as with constant weights. An observation then moves the weights as far as that many steps would: weight_step, weight_clip, weight_floor and popo_eta are scaled. Rules that choose the weights from the gradients of the same step ('mgda', 'pcgrad', 'upgrad', 'fairgrad') need 1."
        },
    )
    weight_warmup: int = field(
        default=0,
        metadata={
            "help": "Steps before gradient-based weights start to change; use a few with LoRA, whose matrix B starts at zero."
        },
    )
    light_statistics: str = field(
        default="batch",
        metadata={
            "help": "Rollouts over which popo-light computes means and standard deviations: the whole 'batch', or the 'group' of each prompt, with the results averaged over the prompts."
        },
    )
    popo_eta: float = field(
        default=1.0, metadata={"help": "eta of popo_mode='paper': log w changes by eta / mu times the indicator."}
    )
    popo_mu: float = field(default=1.0, metadata={"help": "mu of popo_mode='paper'; see popo_eta."})
    directional_step: float = field(
        default=1e-3,
        metadata={
            "help": "Finite-difference step relative to the norm of the parameters; 1e-3 is right in float32. With bfloat16 weights, a step that is too small is lost in rounding, and one that is too large is biased by curvature. The best value depends on the model, so compare the indicators with those of gram_estimator='cross-batch' once."
        },
    )
    token_weighting: str = field(
        default="none", metadata={"help": "'pepo' multiplies each token's advantage by its PEPO weight."}
    )
    pepo_alpha: float = field(default=0.05, metadata={"help": "Strength of PEPO's gate."})
    pepo_temperature: float = field(
        default=1.0, metadata={"help": "PEPO's softmax temperature (1 in the paper, 1.8 in its released scripts)."}
    )
    pepo_evidence: str = field(
        default=r"Item title: [^\n]*",
        metadata={
            "help": "Regular expression that matches the evidence in the prompt; if nothing matches, all prompt tokens are evidence."
        },
    )
    pepo_as_released: bool = field(
        default=False,
        metadata={
            "help": "Let gradients flow through the token weights, as in the published code. Only for weighting rules that use no gradients: those that read rewards, 'fixed' and 'gdpo'."
        },
    )
    dynamic_sampling: int = field(
        default=0,
        metadata={
            "help": "Largest number of rounds in which groups that can change neither parameters nor weights are replaced by groups of other prompts; 0 disables this."
        },
    )
    front_reference: list[float] | None = field(
        default=None,
        metadata={
            "help": "Reference point of the logged hypervolume: one value per reward, in its own units. Only batches whose mean is better in every reward contribute to the volume. None uses the mean rewards of the first batch."
        },
    )
    rollout_draw: str = field(
        default="noise",
        metadata={
            "help": "How shared rollouts sample a token: 'noise' (the random stream of transformers, which gives exactly the tokens of plain TRL under the same seed) or 'uniform' (one random number per row: the same distribution, but faster)."
        },
    )
    share_prefixes: bool = field(
        default=True,
        metadata={
            "help": "Compute a prompt once for all of its rollouts, with the same numbers up to float rounding. False gives TRL's own computation, bit for bit."
        },
    )

    def __post_init__(self) -> None:
        _one_of("weighting", self.weighting, tuple(RULES))
        _one_of("popo_mode", self.popo_mode, ("robust", "paper"))
        _one_of("gram_estimator", self.gram_estimator, ESTIMATORS)
        if self.aggregation is None:
            self.aggregation = "common" if self.source == "gradients" else "trl"
        _one_of("aggregation", self.aggregation, ("common", "trl", "linear"))
        _one_of("light_statistics", self.light_statistics, ("batch", "group"))
        _one_of("token_weighting", self.token_weighting, ("none", "pepo"))
        if self.dynamic_sampling < 0:
            raise ConfigError(
                "The number of rounds is negative.",
                where="dynamic_sampling",
                expected="0 or more",
                found=str(self.dynamic_sampling),
            )
        _one_of("rollout_draw", self.rollout_draw, get_args(Draw))
        if self.weight_every < 1:
            raise ConfigError(
                "The number of steps between two observations is not positive.",
                where="weight_every",
                expected="1 or more",
                found=str(self.weight_every),
            )
        if self.weight_every > 1 and (self.source != "gradients" or RULES[self.weighting].fresh):
            raise ConfigError(
                f"weighting={self.weighting!r} does not support observations of some steps only.",
                where="weight_every",
                expected="1; more only with a rule that reads gradients and applies its weights to later steps, such as 'popo'",
                found=str(self.weight_every),
            )
        self.rule_options()  # raise for values out of range now, not after the model has been loaded
        if not self.directional_step > 0:
            raise ConfigError(
                "The finite-difference step is not positive.",
                where="directional_step",
                expected="more than 0",
                found=str(self.directional_step),
            )
        if self.preference is not None and not RULES[self.weighting].steered:
            raise ConfigError(
                f"weighting={self.weighting!r} does not support a preference.",
                where="preference",
                expected="None",
                found=str(self.preference),
                fix="set reward_weights for constant weights, or use weighting='popo' or 'popo-covariance'",
            )
        if self.source == "gradients" and RULES[self.weighting].fresh and self.aggregation == "trl":
            raise ConfigError(
                f"weighting={self.weighting!r} computes the weights from the gradients of the batch, but TRL's advantage needs them before the backward pass.",
                where="aggregation",
                expected="'common' or 'linear'",
                found="'trl'",
            )
        if self.weighting == "gdpo":
            self.multi_objective_aggregation = "normalize_then_sum"
        super().__post_init__()
        _one_of("scale_rewards", self.scale_rewards, ("group", "batch", "none", LEAVE_ONE_OUT))
        if self.leave_one_out and self.multi_objective_aggregation != "sum_then_normalize":
            raise ConfigError(
                "Rewards that are normalised before they are summed cannot have a leave-one-out baseline.",
                where=f"scale_rewards={LEAVE_ONE_OUT!r}",
                expected="multi_objective_aggregation='sum_then_normalize', and a weighting other than 'gdpo'",
                found=f"multi_objective_aggregation={self.multi_objective_aggregation!r}",
            )
        if self.source == "gradients" and self.weighting != "popo":
            self.gram_estimator = "same-batch"  # the peer methods are defined on the Gram matrix of the batch itself
        prompts = (self.generation_batch_size or 0) // (self.num_generations or 1)
        if self.source == "gradients" and self.gram_estimator != "same-batch" and prompts < 2:
            raise ConfigError(
                f"gram_estimator={self.gram_estimator!r} needs at least two prompts per generation batch, to compare independent halves.",
                found=f"{prompts} (num_generations={self.num_generations})",
                fix="raise per_device_train_batch_size or gradient_accumulation_steps, or set gram_estimator='same-batch'",
            )
        if self.pepo_as_released and self.token_weighting == "pepo" and self.source == "gradients":
            raise ConfigError(
                "pepo_as_released makes the weights depend on the parameters, which per-reward gradients do not support.",
                fix="use weighting='fixed', or a rule that reads rewards, such as 'popo-light'",
            )

    @property
    def leave_one_out(self) -> bool:
        """Return True if the baseline of a rollout is the mean of the prompt's other rollouts, without scaling
        (RLOO)."""
        return self.scale_rewards == LEAVE_ONE_OUT

    @property
    def source(self) -> str:
        """Input of the rule: "none", "rewards" or "gradients"."""
        return RULES[self.weighting].source

    def rule_options(self, scale: RewardScale | None = None) -> RuleOptions:
        """Return the options of the weighting rule. ``scale`` restricts initial weights and preference to the weighted
        rewards."""
        preference = tuple(self.preference) if self.preference else None
        options = RuleOptions(
            mode=self.popo_mode,
            preference=preference if scale is None or preference is None else scale.restricted(preference),
            initial=None if scale is None or self.source == "none" else scale.initial,
            rate=self.weight_step,
            clip=self.weight_clip,
            floor=self.weight_floor,
            average=self.weight_average,
            eta=self.popo_eta,
            mu=self.popo_mu,
            warmup=self.weight_warmup,
            seed=self.seed,
            statistics=self.light_statistics,
        )
        return options if self.weight_every == 1 else options.standing_for(self.weight_every)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} has an unknown value.",
            where=f"ParetoGRPOConfig({name}=…)",
            expected=", ".join(map(repr, allowed)),
            found=repr(value),
        )
