"""Does the short ladder of ``taiji oracle`` come to the same conclusions about titles as the long one of
``benchmarks.uplift``?

A ladder is a series of rankers, called *rungs*, each of which has one more set of inputs than the rung before. The rung
in question adds text match, the similarity of a candidate's text to the texts of the user's history. For each log, the
short ladder of the command is evaluated again (at most 50,000 candidates, WordLlama, the built-in ranker; one seed
instead of three). Its rung is compared with the stored one of the long ladder (``--measured``, by default
``benchmarks/results/uplift.json``: at most 150,000 candidates, two seeds, WordLlama, LightGBM and the built-in ranker).

Two questions are asked of both ladders. *As trained*: does the interval of the gain in AUC lie above 0 if the ranker
always reads text match? *Where it pays*: does the ranker keep text match in at least half of the seeds, because it
lowers the loss on the latest training rows?

Columns:

- ``candidates``, ``gain``, ``low``, ``high``, ``kept``: largest number of candidates of the short ladder, its gain in
  AUC with the interval, and the share of seeds that keep text match.
- ``LightGBM gain`` … ``taiji kept``: the last four of these for each ranker of the long ladder (``taiji`` is the
  built-in one).
- ``says``: the conclusion that the command prints about titles.
- ``right`` (as trained) and ``right where it pays``: ``yes`` if the short ladder answers as every ranker of the long
  one does, ``no`` if every ranker answers differently, ``mixed`` if the rankers differ.

How often the short ladder is right is reported, not checked. The checks are that at least one log was evaluated, and
that the negative control, text match with permuted texts, shows no gain.

``--page`` writes the table between the markers of a page. Finished logs are stored in ``TAIJI_BENCHMARK_WORK``. The
full run takes tens of minutes. The quick run evaluates the world ``shop`` with 8,000 candidates.

    python -m benchmarks.oracle_signs [--data NAME_OR_PATH]... [--measured FILE] [--page FILE] [--quick]
        [--json benchmarks/results/oracle_signs.json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, plain, run
from benchmarks.rationale_data import once
from benchmarks.uplift import arguments
from taiji.core.artifacts import read_json
from taiji.core.number_format import number_text
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source
from taiji.experiments.decision import is_kept, sign
from taiji.experiments.log_ladder import climbed
from taiji.pipeline.oracle import LADDER_ROWS

MEASURED = Path(__file__).parent / "results" / "uplift.json"
EMBEDDER = "wordllama"
TEXT = f"2 text match, {EMBEDDER}"
BEGIN, END = "<!-- the table of benchmarks.oracle_signs begins -->", "<!-- it ends -->"
MODELS = ("LightGBM", "taiji")
ENDS = ("gain", "low", "high", "kept")

Row = Mapping[str, Any]


def gains(rows: Sequence[Row], rung: str = TEXT) -> dict[str, dict[str, Any]]:
    """Return the gain of a rung over all test rows, with its interval and the share of seeds that keep it, by
    ranker."""
    whole = [row for row in rows if row.get("rung") == rung and row["group"] == "all" and "gain" in row]
    return {row["model"]: {name: row.get(name) for name in ENDS} for row in whole}


def compared(predicted: Row, measured: Mapping[str, Row]) -> dict[str, str]:
    """Return the columns ``right`` and ``right where it pays``.

    Each is ``yes`` if the prediction agrees with every measured ranker, ``no`` if it agrees with none, ``mixed`` if the
    rankers differ, and "not measured" if one side is missing.
    """

    def agrees(said: bool | None, found: Sequence[bool]) -> str:
        if said is None or not found:
            return "not measured"
        return "mixed" if len(set(found)) > 1 else "yes" if found[0] == said else "no"

    def gains_(row: Row) -> bool | None:
        return None if sign(row) is None else sign(row) == 1

    known = [row for row in measured.values() if gains_(row) is not None]
    return {
        "right": agrees(gains_(predicted), [gains_(row) is True for row in known]),
        "right where it pays": agrees(is_kept(predicted), [is_kept(row) for row in measured.values()]),
    }


def measure(quick: bool, logs: Sequence[str], measured: Path) -> Result:
    """Evaluate the short ladder on every log, and compare it with the stored gains of the long one."""
    result = Result()
    stored = read_json(measured)["rows"] if measured.is_file() else []
    candidates = 8_000 if quick else LADDER_ROWS
    done = 0
    for name in ["world:shop"] if quick else logs:
        label = Path(name).name

        def climb(name: str = name) -> dict[str, Any]:
            dataset = Dataset.from_tables(load_source(name))
            return dict(plain(climbed(dataset, EMBEDDER, 1, 100 if quick else 500, rows=candidates)))

        try:
            found = once(["oracle signs", name, candidates], climb)
        except FileNotFoundError:
            print(f"{name}: skipped, it was not found")
            continue
        done += 1
        own = gains(found["ladder"]).get("taiji", dict.fromkeys(ENDS))
        others = gains([row for row in stored if row["data"] == label and row.get("embedder") == EMBEDDER])
        says = next((line["says"] for line in found["decisions"] if "titles" in line["question"]), "")
        row: dict[str, Any] = {
            "data": label,
            "candidates": candidates,
            **own,
            "says": says or found.get("left_out", ""),
        }
        for model in MODELS:
            row |= {f"{model} {name}": others.get(model, {}).get(name) for name in ENDS}
        result.rows.append(row | compared(own, others))
        result.so_far()
        control = gains(found["ladder"], f"{TEXT}: control, permuted texts").get("taiji", {})
        if control.get("low") is not None:
            result.at_most(f"{label}: lower end of the control's gain", control["low"], 0.0)
    result.at_least("logs evaluated", done, 1)
    return result


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| log | the command, as trained (kept) | LightGBM, measured | built-in, measured | sign right, as trained | right where it pays |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = [{name: row.get(f"{prefix}{name}") for name in ENDS} for prefix in ("", *(f"{m} " for m in MODELS))]
        cells = [row["data"], *map(_cell, parts), row["right"], row["right where it pays"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(part: Row) -> str:
    if part["gain"] is None:
        return "not measured"
    text = number_text(part["gain"], 3, signed=True)
    if part["low"] is not None:
        text += f" [{number_text(part['low'], 3)}, {number_text(part['high'], 3)}]"
    return text if part["kept"] is None else f"{text} ({part['kept']:g})"


def write_page(page: Path, rows: Sequence[Row]) -> None:
    """Replace the text between the markers of a page by the table."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, there, after = rest.partition(END)
    if not there:
        raise SystemExit(f"{page} lacks the markers {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--page", type=Path)
    known, rest = parser.parse_known_args(argv)

    def measured_and_told(quick: bool) -> Result:
        result = measure(quick, known.data or arguments([])[0], known.measured)
        if known.page:
            write_page(known.page, result.rows)
        return result

    run(measured_and_told, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
