"""Two processes over gloo learn what one learns with twice the batch."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file
from tests.processes import launched

from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.settings import SFTSettings
from taiji.reasoning.sft import sft_rows, train_sft


def train(rank: int, world: int, folder: Path, settings: SFTSettings) -> None:
    """One process of a training."""
    from taiji.language.causal_lm import load_language_model

    lm = load_language_model(folder / "start", "float32", "cpu")
    rows = pl.read_parquet(folder / "rows.parquet")
    losses = train_sft(lm, rows, settings, folder / (f"model-{world}" if rank == 0 else "helper"), seed=3)
    losses.write_parquet(folder / f"losses-{world}-{rank}.parquet")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 4], ids=["full", "adapters"])
def test_two_processes_learn_what_one_learns_with_twice_the_batch(lm, dataset, examples, prompts, tmp_path, rank):
    sft_rows(
        dataset, examples, RuleWriter(prompts).write(dataset, examples, 2, 0), prompts, lm.tokenizer
    ).write_parquet(tmp_path / "rows.parquet")
    lm.save(tmp_path / "start")
    for world in (1, 2):
        settings = SFTSettings(
            lora_rank=rank, learning_rate=5e-3, epochs=2, batch_size=4 // world, gradient_accumulation=1
        )
        launched(train, world, tmp_path, settings)
    before, one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "model-1", "model-2"))
    moved = max(float((one[name] - before[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-3 and apart < 1e-2 * moved, (moved, apart)
    losses = [pl.read_parquet(tmp_path / f"losses-{world}-0.parquet")["loss"].to_numpy() for world in (1, 2)]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert not (tmp_path / "helper").exists(), "the first process alone writes"
