"""Two runs beside each other: what differs, and figures on one scale."""

from __future__ import annotations

from taiji.inspector.compare import compare, flat
from taiji.inspector.run_view import RunFiles


def test_settings_that_differ_and_figures_of_both(run_folder, other_folder):
    first, second = RunFiles(run_folder), RunFiles(other_folder)
    assert flat({"a": {"b": 1, "c": [2]}}) == {"a.b": 1, "a.c": [2]}
    view = compare(first, second)
    assert view["settings"] == [("alignment.weighting", "popo", "popo-light")]
    assert view["same"] is True
    facts = {name: values for name, *values in view["facts"]}
    assert facts["rationales scored"] == [144, 144] and facts["rationales kept"] == [83, 83]
    for chart in view["curves"].values():
        svg, legend = str(chart).split("</svg>")
        assert "semantic, other" in legend and 'class="name' not in svg, "names of two runs have no room beside curves"
    titles = [group["title"] for group in view["groups"]]
    assert "Category L1" in titles and "AUC, click, all users" in titles
    for group in view["groups"]:
        for row in group["rows"]:
            one, two = row["cells"]
            assert one["text"] == two["text"] and not row["apart"], "the same figures overlap"


def test_a_run_without_a_report_is_compared_by_its_settings(run_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((run_folder / "config.json").read_bytes())
    view = compare(RunFiles(run_folder), RunFiles(tmp_path))
    assert view["same"] is None and view["groups"] == [] and view["settings"] == []
