"""The table of the oracle's signs: what counts as right, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import oracle_signs
from benchmarks.oracle_signs import BEGIN, END, TEXT, compared, gains, table, write_page
from tests.quick import run_quick

PAGE = Path(__file__).parents[2] / "docs" / "will-it-help.md"
STORED = Path(oracle_signs.__file__).parent / "results" / "oracle_signs.json"


def gain(value, half=0.005, kept=1.0):
    return {"gain": value, "low": value - half, "high": value + half, "kept": kept}


@pytest.mark.parametrize(
    "predicted, measured, trained, pays",
    [
        (gain(0.02), [gain(0.02), gain(0.03)], "yes", "yes"),
        (gain(0.02), [gain(0.02), gain(0.001)], "mixed", "yes"),
        (gain(0.02, kept=0.0), [gain(0.02), gain(0.03)], "yes", "no"),
        (gain(0.001), [gain(0.02)], "no", "yes"),
        (gain(-0.02, kept=0.0), [gain(0.0, kept=0.0), gain(-0.02, kept=0.0)], "yes", "yes"),
        (gain(0.02), [], "not measured", "not measured"),
        ({"gain": None, "low": None, "high": None, "kept": None}, [gain(0.02)], "not measured", "not measured"),
    ],
    ids=["right", "models differ", "dropped by the command", "missed", "twin", "not there", "too short"],
)
def test_a_prediction_is_right_where_every_measured_model_agrees(predicted, measured, trained, pays):
    found = compared(predicted, {str(place): row for place, row in enumerate(measured)})
    assert found == {"right": trained, "right where it pays": pays}


def test_gains_are_those_of_the_text_rung_over_all_rows():
    rows = [
        {"rung": TEXT, "group": "all", "model": "taiji", **gain(0.02)},
        {"rung": TEXT, "group": "cold items", "model": "taiji", **gain(0.5)},
        {"rung": f"{TEXT}: control, permuted texts", "group": "all", "model": "taiji", **gain(0.1)},
        {"data": "a log without rungs", "users": 3},
    ]
    assert gains(rows) == {"taiji": gain(0.02)}


def test_the_table_goes_between_the_markers_and_nothing_else_changes(tmp_path):
    own, other = gain(0.0132), gain(0.0163, kept=0.5)
    row = {"data": "a", **own, **{f"LightGBM {name}": value for name, value in other.items()}}
    row |= {f"taiji {name}": None for name in own} | {"right": "yes", "right where it pays": "no"}
    page = tmp_path / "page.md"
    page.write_text(f"before {BEGIN} old {END} after")
    write_page(page, [row])
    text = page.read_text()
    assert text.startswith(f"before {BEGIN}\n") and text.endswith(f"{END} after") and " old " not in text
    assert "| a | +0.013 [0.008, 0.018] (1) | +0.016 [0.011, 0.021] (0.5) | not measured | yes | no |" in text
    with pytest.raises(SystemExit, match="lacks the markers"):
        write_page(STORED.parent.parent / "__init__.py", [row])


def test_the_page_shows_the_stored_figures():
    rows = json.loads(STORED.read_text())["rows"]
    assert f"{BEGIN}\n\n{table(rows)}\n\n{END}" in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.integration
def test_quick_run_holds_its_checks(tmp_path):
    found = run_quick("oracle_signs", tmp_path)
    assert found["rows"][0]["data"] == "world:shop" and found["rows"][0]["right"] in ("yes", "no", "mixed")
