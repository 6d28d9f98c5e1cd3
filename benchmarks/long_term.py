"""Do long-term policies help in the worlds that they are made for, but not in the twins or with a confounded log?

This benchmark runs three components: ``expert_cloning`` (world ``retention``), ``cache_actor`` and ``cache_critics``
(world ``peak-load``). The modules of these names in `benchmarks/components` describe what is compared with what. In the
twin of a world, the mechanism from which the policy could gain is switched off.

Each row has a ``component``, a ``place`` (world, twin, …), an ``arm``, the ``value`` of the ``metric`` (mean over
``seeds``), the number of ``parameters``, and ``component minus arm``, the difference between the component and this
arm, with its 95 % interval from ``low`` to ``high``.

    python -m benchmarks.long_term [--quick] [--json benchmarks/results/long_term.json]

``LONG_TERM`` names the components to run, separated by spaces (default: all), and ``BENCH_WORKERS`` is the number of
processes.
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
