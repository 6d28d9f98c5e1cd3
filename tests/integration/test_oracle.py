"""`taiji oracle`: what the truth is worth, without a language model."""

from __future__ import annotations

from tests.integration.test_loop import taiji

from taiji.core.artifacts import read_json


def test_the_truth_is_judged_beside_the_floor_and_the_run_can_go_on_from_there(small_config, tmp_path):
    options = ("--name", "small", "--runs", tmp_path, "--seeds", 2, "--set", "evaluation.resamples=20")
    done = taiji("oracle", small_config, *options)
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path / "small" / "oracle" / "oracle.json")
    assert found["arms"] == ["none", "history_mean", "negative control: shuffled", "truth", "truth, next 10"]
    assert {line["arm"] for line in found["controls"]} == {"negative control: shuffled"} and len(found["cells"]) == 10
    rows = {(row["group"], row["features"], row["metric"]): row for row in found["rows"]}
    assert rows["all", "truth", "click auc"]["difference"]["against"] == "none"
    assert rows["all", "truth", "click auc"]["competitors"][0]["against"] == "history_mean"
    assert [gap["against"] for gap in rows["all", "truth", "click auc"]["competitors"]][
        1
    ] == "negative control: shuffled"
    assert [line["features"] for line in found["bounds"]] == ["truth", "truth, next 10"]
    assert all(line["says"] in done.stdout for line in found["bounds"])
    assert any(line["bound"] for line in found["bounds"]) == ("not forecasts" in done.stdout)
    assert sorted(path.name for path in (tmp_path / "small").iterdir() if path.is_dir() and path.name[0] != ".") == [
        "data",
        "examples",
        "oracle",
    ]

    again = taiji("oracle", small_config, *options, "--json", "-")
    assert again.returncode == 0 and again.stderr.count("unchanged, skipped") == 2
    assert '"truth, next 10"' in again.stdout
