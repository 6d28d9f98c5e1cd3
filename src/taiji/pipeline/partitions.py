"""Map the work of a stage over partitions of its rows, on this machine or on a cluster.

A stage defines *what* to do with a partition: its worker factory loads the model and the tables, and returns the work,
which is a function of a frame. A :class:`Mapper` defines *where*: in this process (:class:`LocalMapper`), or on a
cluster (:class:`taiji.scale.ray_mapper.RayMapper`). Both use the same partitions, so both give the same rows.

Each partition is a Parquet file of input rows and, when finished, a Parquet file of output rows. Both names contain the
hash of the input rows. The folder belongs to one job, and the engine clears it when anything else on which the work
depends has changed. An output appears by an atomic rename of a complete file. So a partition has a single output even
if it is computed twice: by a retry, by a worker that was wrongly considered dead, or by two runs of a killed job. The
hash of an output is stored next to it, and an existing output is recomputed only if its content does not match the
hash.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from taiji.core.artifacts import atomic_file, file_hash, write_text

log = logging.getLogger(__name__)

Work = Callable[[pl.DataFrame], pl.DataFrame]
"""Function that maps the input rows of a partition to its output rows, which depend on nothing else."""
WorkerFactory = Callable[[], Work]
"""Function that loads the resources of the work, called once per worker."""


@dataclass(frozen=True)
class Partition:
    """Partition of the rows of a job.

    Attributes:
        number: index among the partitions of the job.
        rows: Parquet file of the input.
        out: Parquet file of the output; it exists if the partition is finished.
    """

    number: int
    rows: Path
    out: Path

    def compute(self, work: Work) -> None:
        """Compute and write the output, unless it exists already."""
        if not self.out.exists():
            made = work(pl.read_parquet(self.rows))
            with atomic_file(self.out) as temporary:
                made.write_parquet(temporary, compression="zstd", statistics=True)
                write_text(self.checksum, file_hash(temporary))

    @property
    def checksum(self) -> Path:
        """File with the hash of the output, written before the output."""
        return self.out.with_suffix(".sha256")

    def drop_damaged(self) -> None:
        """Remove an output whose content does not match its hash, so that it is recomputed."""
        if self.out.exists() and not (
            self.checksum.exists() and self.checksum.read_bytes() == file_hash(self.out).encode()
        ):
            log.warning("%s does not match its hash and is computed again", self.out)
            self.out.unlink()


class Mapper(Protocol):
    """Interface of the machines that compute partitions."""

    def run(self, factory: WorkerFactory, partitions: Sequence[Partition]) -> Iterator[Partition]:
        """Compute every partition and yield each, in any order, once its output exists.

        Errors of the work are raised here; finished outputs are kept.
        """
        ...


@dataclass(frozen=True)
class LocalMapper:
    """Sequential computation in this process."""

    def run(self, factory: WorkerFactory, partitions: Sequence[Partition]) -> Iterator[Partition]:
        """See :class:`Mapper`."""
        work = factory() if partitions else None
        for partition in partitions:
            assert work is not None
            partition.compute(work)
            yield partition


def map_rows(
    mapper: Mapper,
    factory: WorkerFactory,
    rows: pl.DataFrame,
    size: int,
    folder: Path,
    on_done: Callable[[int], None] = lambda done: None,
) -> pl.DataFrame:
    """Map the work over partitions of ``rows``, and return the outputs concatenated in the order of the rows.

    Args:
        mapper: mapper that computes the partitions.
        factory: worker factory.
        rows: inputs in a stable order; at least one row.
        size: rows per partition.
        folder: folder of the partitions, used only by this job.
        on_done: function called with the number of finished rows, for a progress display.
    """
    partitions = [
        _partition(number, rows.slice(start, size), folder) for number, start in enumerate(range(0, len(rows), size))
    ]
    for partition in partitions:
        partition.drop_damaged()
    missing = [partition for partition in partitions if not partition.out.exists()]
    lengths = {partition.number: min(size, len(rows) - partition.number * size) for partition in partitions}
    done = len(rows) - sum(lengths[partition.number] for partition in missing)
    if done:
        on_done(done)
    for partition in mapper.run(factory, missing):
        done += lengths[partition.number]
        on_done(done)
    return pl.concat([pl.read_parquet(partition.out) for partition in partitions])


def _partition(number: int, rows: pl.DataFrame, folder: Path) -> Partition:
    """Write the input file of a partition, and return the partition."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd")
    name = f"{number:05d}-{hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]}.parquet"
    partition = Partition(number, folder / f"rows-{name}", folder / f"part-{name}")
    if not partition.rows.exists() or partition.rows.read_bytes() != buffer.getbuffer():
        with atomic_file(partition.rows) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    return partition
