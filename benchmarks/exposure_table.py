"""Loading of the whole exposure table of Complete Journey, from the package's files to checked tables, in a separate
process.

There are 20.9 million promotion rows and 1.47 million purchase lines. Counts and memory are checked; seconds are only
reported.
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
    """Load once (quick) or three times, and compare the counts with the published ones and the memory with its
    limit."""
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
