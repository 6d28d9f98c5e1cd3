"""Does each component help in the simulated world that it is made for, and not in that world's twin?

Every other module of this package with a ``COMPONENT`` describes one comparison: the question, the arms, and the metric
that decides. The module :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held
equal for all arms. Without ``--only`` all components are run.

    python -m benchmarks.components [--only NAME]... [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.components.comparison import components, measure
from benchmarks.harness import Result, run
from taiji.core.errors import ConfigError


def main() -> None:
    """Parse ``--only``, and leave the other arguments to the harness."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", action="append", metavar="NAME", help="run only this component; may be repeated")
    arguments, rest = parser.parse_known_args()
    known = components()
    chosen = arguments.only or list(known)
    if unknown := sorted(set(chosen) - set(known)):
        sys.exit(
            str(
                ConfigError(
                    "There is no such component.", where="--only", expected=", ".join(known), found=", ".join(unknown)
                )
            )
        )

    def all_of_them(quick: bool) -> Result:
        """Run the chosen components one after another."""
        result = Result()
        for name in chosen:
            measure(name, known[name], result, quick)
            result.so_far()
        return result

    run(all_of_them, rest)


if __name__ == "__main__":
    main()
