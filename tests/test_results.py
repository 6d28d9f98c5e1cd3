"""Pages of results: their intervals are those of the files that their benchmarks wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from tests.pages import ROOT

FOLDER, FILES = ROOT / "docs" / "results", ROOT / "benchmarks" / "results"
PAGES = (
    "ab-tests",
    "copywriting",
    "generative",
    "intent",
    "long-term",
    "multi-behaviour",
    "rankers",
    "study",
    "text-features",
    "worlds",
)
"""Pages all of whose intervals are of files in the repository; others tell of runs without one, or of earlier runs,
too."""
NUMBER = r"[+−]?\d*\.?\d+"
INTERVAL = re.compile(rf"({NUMBER})( %)? \[({NUMBER})(?: %)?, ({NUMBER})(?: %)?\]")


def numbers(value: object) -> Iterator[float]:
    """Yield the size of every number in a file of results."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield abs(float(value))


def stands(text: str, known: np.ndarray) -> bool:
    """Return whether some known number rounds to the text, up to its sign."""
    written = abs(float(text.replace("−", "-")))
    half = 0.5 * 10.0 ** -len(text.partition(".")[2])
    return bool((np.abs(known - written) <= half * (1 + 1e-6)).any())


@pytest.mark.parametrize("page", PAGES)
def test_intervals_are_those_of_the_benchmarks_files(page):
    text = (FOLDER / f"{page}.md").read_text()
    known = np.asarray([n for name in set(re.findall(r"([\w-]+)\.json", text)) for n in numbers(json.loads((FILES / f"{name}.json").read_text()))])  # fmt: skip
    found = INTERVAL.findall(text)
    assert found
    missing = [
        figures
        for *figures, percent in ((x, low, high, percent) for x, percent, low, high in found)
        if not all(stands(figure, known * 100 if percent else known) for figure in figures)
    ]
    assert not missing


def test_times_of_the_request_side_are_those_of_the_benchmarks_file():
    text = (FOLDER / "rankers.md").read_text().partition("## The request side")[2].partition("## Ten million")[0]
    told = json.loads((FILES / "split_weights.json").read_text())
    ratios = [row["value"] for row in told["rows"] if re.search("^time|^encoded once", row["metric"])]
    ratios += [check["value"] for check in told["checks"] if "over split" in check["name"]]
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert len(ratios) == 6 and not [ratio for ratio in ratios if f"{ratio:.1f}" not in table]
