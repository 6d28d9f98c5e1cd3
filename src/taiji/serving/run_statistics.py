"""Statistics of a run's log, with counters on disk next to the service's store.

``python -m taiji.serving.run_statistics RUN`` creates the counters. If they are missing, a process of the service
starts this command, so that the memory needed to create them is freed when the command ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from taiji.core.errors import ResourceError
from taiji.core.locks import exclusive
from taiji.data.dataset import Dataset
from taiji.data.statistics import Statistics, statistics_of
from taiji.data.stored import open_dataset
from taiji.data.stored_counts import store_counts, stored_statistics
from taiji.serving.logs import log

FOLDER, LOCK = "statistics", ".statistics.lock"
UNWRITABLE = 3
"""Exit code if the run directory cannot be written to."""


def run_statistics(run: Path, dataset: Dataset) -> Statistics:
    """Return the statistics of a run's log from its counters on disk.

    The counters are created if they are missing, damaged or from another log. If the run directory is not writable,
    they are created in memory.

    Raises:
        ResourceError: the counters could not be created.
    """
    if found := _stored(run, dataset):
        return found
    made = subprocess.run([sys.executable, "-P", "-m", "taiji.serving.run_statistics", str(run)], check=False)
    if made.returncode == UNWRITABLE:
        log("statistics in memory", run=run.name, why="the run directory cannot be written to")
        return statistics_of(dataset)
    if found := _stored(run, dataset):
        return found
    raise ResourceError(
        "The statistics of the log could not be computed.",
        where=str(run / "serving" / FOLDER),
        found=f"exit code {made.returncode}",
        fix="see the log of the service, and check that there is enough memory and disk space",
    )


def _stored(run: Path, dataset: Dataset) -> Statistics | None:
    return stored_statistics(dataset, run / "data" / "dataset", run / "serving" / FOLDER)


def main(run: Path) -> int:
    """Create the counters of a run, unless another process has just done so. Return the exit code."""
    source = run / "data" / "dataset"
    try:
        with exclusive(run / "serving" / LOCK, "", where=run, fix="", wait=True):
            dataset = open_dataset(source)
            if _stored(run, dataset) is None:
                store_counts(dataset, source, run / "serving" / FOLDER)
    except ResourceError as error:
        log("statistics not saved", run=run.name, error=error.message)
        return UNWRITABLE
    return 0


if __name__ == "__main__":
    from taiji.serving.logs import to_standard_error

    to_standard_error()
    sys.exit(main(Path(sys.argv[1])))
