"""Play random shops again: ``python -m tests.shops 17`` one of them, ``python -m tests.shops --shops 2000`` many.

``--set axis=form`` changes a choice, ``--keep FOLDER`` keeps the files, ``--shrink`` looks for the fewest unusual
forms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from tests.shops.choices import PLAIN, alone, draw, unusual
from tests.shops.play import BAD, OUTCOMES, Outcome, play, shrunk


def table(outcomes: list[Outcome]) -> str:
    """Return the counts of outcomes, then by axis and form."""
    counts = Counter(outcome.kind for outcome in outcomes)
    lines = [f"{counts[kind]:6}  {kind}" for kind in OUTCOMES]
    forms: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for axis, form in outcome.choices.items():
            forms[axis, form][outcome.kind] += 1
    lines.append(f"\n{'axis = form':36}" + "".join(f"{kind[:11]:>12}" for kind in OUTCOMES))
    for (axis, form), found in sorted(forms.items(), key=lambda entry: list(PLAIN).index(entry[0][0])):
        lines.append(f"{axis + ' = ' + form:36}" + "".join(f"{found[kind] or '':>12}" for kind in OUTCOMES))
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--shops", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--forms", action="store_true", help="each form alone, on the first seed")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--write", type=Path, help="outcomes as JSON lines")
    given = parser.parse_args()
    if given.forms:
        for outcome in map(partial(play, given.first), alone()):
            print(f"{outcome.kind:30} {unusual(outcome.choices):50} {' '.join(outcome.detail.split())[:250]}")
        return
    if not given.shops:
        for seed in given.seeds or [given.first]:
            choices = {**draw(seed), **dict(entry.split("=", 1) for entry in given.set)}
            outcome = play(seed, choices, given.keep)
            print(outcome)
            if given.shrink:
                print("fewest forms:", shrunk(outcome), sep="\n")
        return
    seeds = range(given.first, given.first + given.shops)
    outcomes, fewest = [], []
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool, open(given.write or os.devnull, "w") as file:
        for outcome in pool.imap_unordered(play, seeds):
            outcomes.append(outcome)
            file.write(json.dumps(vars(outcome), ensure_ascii=False) + "\n")
            file.flush()
        bad = [outcome for outcome in outcomes if outcome.kind in BAD]
        fewest = pool.map(shrunk, bad, chunksize=1) if given.shrink else bad
    print(table(outcomes))
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in fewest:
        groups[outcome.kind, unusual(outcome.choices)].append(outcome)
    for (kind, forms), found in sorted(groups.items(), key=lambda entry: (entry[0][0], -len(entry[1]))):
        print(
            f"\n{len(found)} x {kind}: {forms}\n  seeds {[outcome.seed for outcome in found[:5]]}\n  {found[0].detail}"
        )


if __name__ == "__main__":
    main()
