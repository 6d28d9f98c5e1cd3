"""The configuration of :class:`taiji.alignment.ParetoGRPOTrainer`: TRL's, plus how the reward weights move."""

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

    ``scale_rewards`` has one more value, ``"leave-one-out"``: advantages as RLOO's, r minus the mean of the prompt's other rollouts.

    ``reward_weights`` are the constant weights under ``weighting="fixed"``, and where adaptive rules start. Rules move the
    weights' shares; their total stays what it was, so that a run begins with the very step of TRL's under these weights (ones,
    when none are given). A weight of zero is a reward that is only logged, a negative one a penalty.
    """

    weighting: str = field(default="popo", metadata={"help": "Rule for the reward weights: " + ", ".join(RULES) + "."})
    popo_mode: str = field(
        default="robust",
        metadata={"help": "'robust' (averaged, clipped, with a floor) or 'paper' (raw exponentiated gradient)."},
    )
    preference: list[float] | None = field(
        default=None, metadata={"help": "Trade-off at which POPO should end; None is equal weights."}
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
            "help": "'trl': the update descends on TRL's scalar advantage of the weighted rewards; 'common': on the weighted sum of per-reward advantages, a group's rewards divided by one scalar that does not depend on the weights; 'linear': each reward divided by its own deviation, which loses the trade-off's curvature and runs to one reward (combine it with scale_rewards='none'). None is 'common' for rules that look at gradients and 'trl' for the others."
        },
    )
    kl_in_indicator: bool = field(
        default=True,
        metadata={
            "help": "Whether beta * KL is part of every reward's loss when indicators are computed; outside, the end point is no longer that of equal weights."
        },
    )
    weight_step: float = field(
        default=0.1,
        metadata={
            "help": "kappa of the robust step (also the learning rate of 'uncertainty' and the step of 'feedback')."
        },
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
    light_statistics: str = field(
        default="batch",
        metadata={
            "help": "What popo-light takes means and deviations over: the whole 'batch', or each prompt's 'group', averaged over groups."
        },
    )
    popo_eta: float = field(default=1.0, metadata={"help": "eta of the paper's update."})
    popo_mu: float = field(default=1.0, metadata={"help": "mu of the paper's update."})
    directional_step: float = field(
        default=1e-3,
        metadata={
            "help": "Finite-difference step relative to the parameters' norm; 1e-3 is right in float32. With bfloat16 weights rounding drowns a step that is too small and curvature bends one that is too large; which is best depends on the model, so compare the indicators with gram_estimator='cross-batch' once."
        },
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
        metadata={"help": "Regular expression of the prompt's evidence; all prompt tokens if nothing matches."},
    )
    pepo_as_released: bool = field(
        default=False,
        metadata={
            "help": "Let gradients flow through the token weights, as the published code does; reward rules and 'fixed' only."
        },
    )
    dynamic_sampling: int = field(
        default=0,
        metadata={
            "help": "Most rounds in which groups that can move neither parameters nor weights are replaced by groups of other prompts; 0 is never."
        },
    )
    front_reference: list[float] | None = field(
        default=None,
        metadata={
            "help": "Mean rewards, one a reward, above which the logged volume of the front is measured; None is the first batch's."
        },
    )
    rollout_draw: str = field(
        default="noise",
        metadata={
            "help": "How shared rollouts draw a token: 'noise' (the random stream of transformers: the very tokens of stock TRL under one seed) or 'uniform' (one random number a row; same distribution, faster)."
        },
    )
    share_prefixes: bool = field(
        default=True,
        metadata={
            "help": "Compute a prompt once for all of its rollouts; same numbers up to float rounding. False uses TRL's own computation, to the bit."
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
        self.rule_options()  # out of range here, not after the model has been loaded
        if not self.directional_step > 0:
            raise ConfigError(
                "The finite difference needs a step.",
                where="directional_step",
                expected="more than 0",
                found=str(self.directional_step),
            )
        if self.preference is not None and not RULES[self.weighting].steered:
            raise ConfigError(
                f"weighting={self.weighting!r} does not know a preference.",
                where="preference",
                expected="None",
                found=str(self.preference),
                fix="set reward_weights for constant weights, or take weighting='popo' or 'popo-covariance'",
            )
        if self.source == "gradients" and RULES[self.weighting].fresh and self.aggregation == "trl":
            raise ConfigError(
                f"weighting={self.weighting!r} makes the weights from the batch's gradients, TRL's advantage needs them before.",
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
                "Rewards that are divided by their deviation over the batch have no leave-one-out baseline.",
                where=f"scale_rewards={LEAVE_ONE_OUT!r}",
                expected="multi_objective_aggregation='sum_then_normalize', and another weighting than 'gdpo'",
                found=f"multi_objective_aggregation={self.multi_objective_aggregation!r}",
            )
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
    def leave_one_out(self) -> bool:
        """Return True if a rollout is compared with the mean of its siblings, without any scale (RLOO)."""
        return self.scale_rewards == LEAVE_ONE_OUT

    @property
    def source(self) -> str:
        """Input of the rule: "none", "rewards" or "gradients"."""
        return RULES[self.weighting].source

    def rule_options(self, scale: RewardScale | None = None) -> RuleOptions:
        """The options of the weight rule, start and preference for the rewards that ``scale`` weighs."""
        preference = tuple(self.preference) if self.preference else None
        return RuleOptions(
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


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} has an unknown value.",
            where=f"ParetoGRPOConfig({name}=…)",
            expected=", ".join(map(repr, allowed)),
            found=repr(value),
        )
