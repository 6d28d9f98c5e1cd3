"""Computation of partitions on a Ray cluster: a pool of Ray actors runs the same stage functions as a local run.

Only the *names* of partitions travel through Ray; rows and results are Parquet files in the run directory, which every
node must reach under the same path. If a node dies, the current pass over the partitions is aborted, and another
pass on the remaining nodes computes the partitions that have no output file yet; only those that were being computed
are lost. Ray Data's streaming executor limits the load: a worker holds at most ``scale.ahead`` partitions and gets the
next when one is done.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taiji.config import ScaleSettings
from taiji.core.errors import ResourceError, TaijiError
from taiji.core.number_format import counted
from taiji.core.optional import needs
from taiji.pipeline.partitions import Partition, Work, WorkerFactory

EXPLAINED = ("message", "where", "expected", "found", "fix")


def connect(address: str | None = None, settings: ScaleSettings | None = None) -> RayMapper:
    """Connect to the Ray cluster at ``address`` (``auto``: this machine's cluster), or start one if it is None.

    Raises:
        TaijiError: Ray is not installed, there is no cluster, or no machine in it can hold a worker.
    """
    settings = settings or ScaleSettings()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs("scale", where="--engine ray"):
        import ray

    if not ray.is_initialized():
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        if not address and settings.workers:
            options["num_cpus"] = max(os.cpu_count() or 1, round(settings.workers * settings.cpus_per_worker))
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        # Ray allows half a minute for its start. If a busy machine needs longer, Ray raises a bare Exception.
        except Exception as error:
            raise TaijiError(
                "The Ray cluster cannot be reached." if address else "Ray did not start on this machine.",
                where=f"--address {address}" if address else "--engine ray",
                found=(str(error).strip().splitlines() or [type(error).__name__])[0],
                fix="start one with `ray start --head`, give its address, or leave --address out to use this machine alone"
                if address
                else "read the message of Ray; --engine local needs no Ray",
            ) from error
    room(settings)
    return RayMapper(settings)


def room(settings: ScaleSettings) -> int:
    """Return the number of workers that fit on the cluster at once; each needs all its resources on one machine.

    Raises:
        ResourceError: no live machine can hold a worker; Ray itself would wait forever for one that can.
    """
    import ray

    wanted = {
        "CPU": settings.cpus_per_worker,
        "GPU": settings.gpus_per_worker,
        "memory": (settings.memory_gb_per_worker or 0.0) * 2**30,
    }
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(
        min(int(machine.get(kind, 0.0) / amount + 1e-9) for kind, amount in wanted.items() if amount)
        for machine in machines
    )
    if not fitting:
        asked = {
            "cpus_per_worker": f"{settings.cpus_per_worker:g}",
            "gpus_per_worker": f"{settings.gpus_per_worker:g}",
            "memory_gb_per_worker": f"{settings.memory_gb_per_worker:g}" if settings.memory_gb_per_worker else "null",
        }
        raise ResourceError(
            "No machine of the Ray cluster can hold a worker.",
            where=", ".join(f"scale.{key}={value}" for key, value in asked.items()),
            expected="a machine with all of these",
            found="; ".join(map(_described, machines)) or "no live machine",
            fix="lower these settings, or add a machine with enough resources (`ray start --address … --num-gpus …`); "
            "an autoscaling cluster must have one such machine before the run starts",
        )
    return fitting


def _described(machine: Mapping[str, float]) -> str:
    """Return a machine's resources as text."""
    cpus, gpus, memory = (machine.get(kind, 0.0) for kind in ("CPU", "GPU", "memory"))
    return f"{cpus:g} {'CPU' if cpus == 1 else 'CPUs'}, {gpus:g} {'GPU' if gpus == 1 else 'GPUs'}, {memory / 2**30:.1f} GiB of memory"


@dataclass(frozen=True)
class RayMapper:
    """Mapper that computes partitions on the connected Ray cluster; created by :func:`connect`."""

    settings: ScaleSettings

    def run(self, factory: WorkerFactory, partitions: Sequence[Partition]) -> Iterator[Partition]:
        """See :class:`taiji.pipeline.partitions.Mapper`.

        Each pass computes the partitions that have no output yet. The passes end when every partition has one, or when
        the same partitions have failed in ``scale.attempts`` passes in a row. An error that the user can fix is raised
        at once.

        Raises:
            TaijiError: raised by a stage function, or because a partition failed in every pass.
        """
        missing = {partition.number: partition for partition in partitions}
        reason, fruitless = "", 0
        while missing and fruitless < self.settings.attempts:
            before = len(missing)
            try:
                for row in self._stream(factory, list(missing.values())):
                    if row["explained"]:
                        raise TaijiError(**json.loads(row["explained"]))
                    if row["error"]:
                        reason = row["error"]
                    else:
                        yield missing.pop(row["number"])
            except TaijiError:
                raise
            except (
                Exception
            ) as error:  # a node died or a worker ran out of memory; the output files show which partitions are done
                reason = str(error)
            for partition in [partition for partition in missing.values() if partition.out.exists()]:
                yield missing.pop(partition.number)
            fruitless = fruitless + 1 if len(missing) == before else 1
        if missing:
            raise TaijiError(
                f"{counted(len(missing), 'partition')} failed {counted(self.settings.attempts, 'time')}.",
                where=str(next(iter(missing.values())).rows),
                found=reason.strip().splitlines()[-1] if reason.strip() else "no response from the workers",
                fix="see the workers' logs on the cluster; finished partitions are kept, so start again with --resume",
            )

    def _stream(self, factory: WorkerFactory, partitions: list[Partition]) -> Iterator[dict[str, Any]]:
        """Make one pass over the partitions, and yield the outcome of each.

        The pass uses as many workers as fit on the cluster, but at most ``scale.workers`` and one per partition. If a
        worker dies, the pass is aborted, and the next pass computes the missing partitions. The worker is not
        restarted: if its node is gone, Ray Data would wait for resources that the other workers hold.
        """
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an aborted pass is repeated, so hide its errors
        known = {partition.number: partition for partition in partitions}
        numbers = ray.data.from_items([{"number": number} for number in known], override_num_blocks=len(known))
        most = min(self.settings.workers or len(known), room(self.settings), len(known))
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=self.settings.ahead
        )
        memory: dict[str, Any] = (
            {"memory": self.settings.memory_gb_per_worker * 2**30} if self.settings.memory_gb_per_worker else {}
        )
        done = numbers.map(
            _Worker,
            fn_constructor_args=(factory, known, os.getcwd()),
            compute=pool,
            num_cpus=self.settings.cpus_per_worker,
            num_gpus=self.settings.gpus_per_worker,
            max_restarts=0,
            **memory,
        )
        yield from done.iter_rows()


class _Worker:
    """Actor that calls the worker factory before its first partition, and reuses the result for later partitions."""

    def __init__(self, factory: WorkerFactory, partitions: dict[int, Partition], folder: str) -> None:
        from taiji.core import progress

        progress.silence(True)
        if os.path.isdir(folder):
            os.chdir(folder)  # paths in the configuration may be relative
        self.factory, self.partitions = factory, partitions
        self.work: Work | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        outcome: dict[str, Any] = {"number": number, "error": "", "explained": ""}
        try:
            if not self.partitions[number].out.exists():
                self.work = self.work or self.factory()
                self.partitions[number].compute(self.work)
        except TaijiError as error:  # returned as a row: an exception here would stop the whole pass
            outcome["explained"] = json.dumps({name: getattr(error, name) for name in EXPLAINED})
        except Exception:
            outcome["error"] = traceback.format_exc()
        return outcome
