"""Do long-term policies help in the worlds that they are made for, but not in the twins or with a confounded log?

    python -m benchmarks.long_term [--quick] [--json FILE]

This benchmark runs the components ``expert_cloning`` (world ``retention``), ``cache_actor`` and ``cache_critics``
(world ``peak-load``), whose modules describe the comparisons. ``LONG_TERM`` names the components to run (by default
all), and ``BENCH_WORKERS`` is the number of processes.
"""

from __future__ import annotations

import os

from benchmarks.components import cache_actor, cache_critics, expert_cloning
from benchmarks.components.comparison import measure as measure_component
from benchmarks.harness import Result, run


def measure(quick: bool) -> Result:
    """Run the chosen components one after another."""
    result = Result()
    modules = {"cache_critics": cache_critics, "cache_actor": cache_actor, "expert_cloning": expert_cloning}
    for name in os.environ.get("LONG_TERM", " ".join(modules)).split():
        module = modules[name]
        measure_component(name, module.COMPONENT, result, quick)
        result.so_far()
    return result


if __name__ == "__main__":
    run(measure)
