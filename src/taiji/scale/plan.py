"""Cost estimate of a run: tokens, GPU hours, storage and wall time of each stage on a given cluster.

The time of CPU stages, and of all stages on a cluster without GPUs, is a line ``fixed + slope * units`` fitted to
finished runs. The time of language stages on GPUs follows from token rates, as in :mod:`taiji.serving.sizing`. Every
assumption is a field of :class:`Cluster` or a sentence of :func:`assumptions`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import Field

from taiji.config import Config
from taiji.core.number_format import counted
from taiji.core.settings import Settings
from taiji.pipeline.amounts import TRAINED, Amount, Log
from taiji.scale.rates import Line, Measured, fit
from taiji.scale.workload import workload
from taiji.serving.sizing import Rates

UNMEASURED = Line(0.0, 0.0)
"""Line (zero seconds) of a stage that no measured run includes; the plan's assumptions name every such stage."""


class Cluster(Settings):
    """Machines of the planned run."""

    workers: int = Field(default=1, ge=1)
    """Number of machines that compute partitions, each as fast as the one on which the finished runs were measured."""
    efficiency: float = Field(default=0.9, gt=0, le=1)
    """Effective speed of each additional machine (or GPU) after waiting and communication, as a share of the speed of
    the first."""
    gpus: int = Field(default=0, ge=0)
    """Number of GPUs for the language stages; 0 runs these stages on the machines' CPUs, at the measured speed."""
    parameters: float = Field(default=135e6, gt=0)
    """Number of parameters of the language model, for its stored size."""
    model: Rates = Rates()
    """Token rates of one GPU with this model, utilisation, and price per hour."""
    teacher: Rates | None = None
    """Token rates, utilisation and price for the teacher, if it is another model on separate GPUs; `null` if the
    teacher is the same model."""
    compare_gflops: float = Field(default=30.0, gt=0)
    """GFLOP/s at which one machine computes the matrix products of the look-alike search (exact, in float64)."""
    vector: int = Field(default=256, ge=1)
    """Dimension of the embeddings that the look-alike search compares."""


@dataclass(frozen=True)
class Cost:
    """Cost of one stage.

    Attributes:
        stage: name of the stage.
        rows: number of prompts, exposures or events.
        tokens_read, tokens_written, tokens_trained: numbers of tokens that the language model reads, writes and is
            trained on.
        gpu_hours: 0 on a cluster without GPUs.
        gpu_cost: price of the GPU hours.
        seconds: wall time.
        gigabytes: size of the artefacts kept.
    """

    stage: str
    rows: float
    tokens_read: float
    tokens_written: float
    tokens_trained: float
    gpu_hours: float
    gpu_cost: float
    seconds: float
    gigabytes: float


@dataclass(frozen=True)
class Plan:
    """Costs of all stages, and the assumptions behind them."""

    stages: tuple[Cost, ...]
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Wall time of the whole run."""
        return sum(cost.seconds for cost in self.stages)

    @property
    def gpu_hours(self) -> float:
        """GPU hours of the whole run."""
        return sum(cost.gpu_hours for cost in self.stages)

    @property
    def gpu_cost(self) -> float:
        """Price of the GPU hours of the whole run."""
        return sum(cost.gpu_cost for cost in self.stages)

    @property
    def gigabytes(self) -> float:
        """Size of the whole run directory."""
        return sum(cost.gigabytes for cost in self.stages)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object, for ``--json``."""
        return {
            "stages": [asdict(cost) for cost in self.stages],
            "seconds": self.seconds,
            "gpu_hours": self.gpu_hours,
            "gpu_cost": self.gpu_cost,
            "gigabytes": self.gigabytes,
            "assumptions": list(self.assumptions),
        }


def plan(
    config: Config, users: float, runs: list[Measured], cluster: Cluster | None = None, log: Log | None = None
) -> Plan:
    """Estimate the cost of a run on a log of a given number of users.

    Args:
        config: configuration of the planned run.
        users: number of users in the log.
        runs: at least one finished run. A stage's fixed time can be separated from its time per unit only if there are
            runs of different sizes.
        cluster: target cluster; by default one machine, as fast as the one on which ``runs`` were measured.
        log: properties of the log other than the number of users, with token counts for the prompts of ``config`` (see
            :func:`taiji.scale.rates.measured`); by default those of the last run in ``runs``.
    """
    cluster = cluster or Cluster()
    last = runs[-1]
    log = replace(log or last.log, users=users)
    amounts, before, lines = workload(config, log), workload(last.config, last.log), fit(runs)
    costs = tuple(
        _cost(
            name, amount, lines.get(name, UNMEASURED), cluster, _storage(name, amount, before.get(name), last, cluster)
        )
        for name, amount in amounts.items()
    )
    unmeasured = [
        f"No measured run includes the stage {name}; its seconds and storage are not counted."
        for name in amounts
        if name not in lines
    ]
    return Plan(costs, (*assumptions(log, runs, cluster), *unmeasured))


def _cost(name: str, amount: Amount, line: Line, cluster: Cluster, gigabytes: float) -> Cost:
    gpu_hours, price, machines = 0.0, 0.0, (1 + (cluster.workers - 1) * cluster.efficiency) if amount.spread else 1.0
    compared = 2 * amount.pairs * cluster.vector / (cluster.compare_gflops * 1e9)
    if amount.language and cluster.gpus:
        model = cluster.teacher if amount.teacher and cluster.teacher else cluster.model
        busy = (amount.read + TRAINED * amount.trained) / model.prefill_per_s + amount.written / model.decode_per_s
        gpu_hours, price = busy / model.utilisation / 3600, model.gpu_hour
        parallel = 1 + (cluster.gpus - 1) * cluster.efficiency
        seconds = gpu_hours * 3600 / parallel + compared / cluster.workers
    else:
        seconds = (
            line.fixed + line.slope * amount.units / machines + (compared / cluster.workers if compared > 60 else 0.0)
        )
    tokens = amount.read, amount.written, amount.trained
    return Cost(name, amount.rows, *tokens, gpu_hours, gpu_hours * price, seconds, gigabytes)


def _storage(name: str, amount: Amount, before: Amount | None, run: Measured, cluster: Cluster) -> float:
    if amount.models:
        return amount.models * 4 * cluster.parameters / 1e9
    return run.gigabytes[name] * amount.rows / max(before.rows, 1.0) if before else 0.0


def assumptions(log: Log, runs: list[Measured], cluster: Cluster) -> list[str]:
    """Return the assumptions of a plan, in sentences."""
    many = len({(run.log.users, run.config.size.test_prompts) for run in runs}) > 1
    lines = [
        f"The log is like that of {runs[-1].folder.name}: {log.events_per_user:,.1f} events per user, {log.items:,.0f} items.",
        f"A prompt has {log.student_tokens:,.0f} tokens, a completion {log.answer_tokens:,.0f}, a rationale {log.rationale_tokens:,.0f}; {log.kept_share:.0%} of the rationales are kept.",
        f"Seconds were measured in {counted(len(runs), 'run')}; "
        + (
            "fixed time and time per unit are separated."
            if many
            else "with only one size, all time counts as time per unit, which overstates the time of a larger run."
        ),
        f"{counted(cluster.workers, 'machine')} like the measured one {'works' if cluster.workers == 1 else 'work'} on partitions, each machine after the first at {cluster.efficiency:.0%} efficiency; reading the data, training a ranker and writing the report are each done on a single machine.",
    ]
    if cluster.gpus:
        m = cluster.model
        lines.append(
            f"{counted(cluster.gpus, 'GPU')}. Each can read {m.prefill_per_s:,.0f} or write {m.decode_per_s:,.0f} tokens per second, is used at {m.utilisation:.0%} of this rate, and costs {m.gpu_hour:g} per hour, in the currency of the settings. Training on a token takes as long as reading three."
        )
        if cluster.teacher:
            lines.append(
                f"A GPU with the teacher can read {cluster.teacher.prefill_per_s:,.0f} or write {cluster.teacher.decode_per_s:,.0f} tokens per second, and costs {cluster.teacher.gpu_hour:g} per hour in the same currency."
            )
    else:
        lines.append(
            "The language stages run on the machines' cores with the measured model; another model needs another measured run."
        )
    lines.append(
        f"The exact look-alike search compares {cluster.vector} numbers per pair at {cluster.compare_gflops:,.0f} GFLOP/s per machine."
    )
    return lines
