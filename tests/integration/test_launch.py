"""The shipped launcher configurations are what accelerate reads them as, and two launched processes train a run's
stages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file
from tests.integration.test_loop import environment

from taiji.config import load_config
from taiji.core.errors import TaijiError
from taiji.pipeline.engine import Run
from taiji.pipeline.recipes import ENHANCE

CONFIGS = Path(__file__).parents[2] / "configs"
LAUNCHERS = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.name.startswith("cluster-")]


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_accelerate_reads_the_file_as_it_is_meant(path):
    from accelerate.commands.config.config_args import load_config_from_file

    read, written = load_config_from_file(str(path)), yaml.safe_load(path.read_text())
    assert read.distributed_type.value == written["distributed_type"] and read.num_processes == written["num_processes"]
    assert read.fsdp_config == written.get("fsdp_config", {})


@pytest.mark.parametrize("path", [path for path in LAUNCHERS if "fsdp" in path.name], ids=lambda path: path.name)
def test_the_plugin_that_the_launcher_sets_up_is_fsdp2(path, monkeypatch):
    """From the file to the launcher's environment to the plugin that accelerate builds in each process."""
    import torch
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments = launch_command_parser().parse_args(
        [
            "--config_file",
            str(path),
            "--main_process_ip",
            "127.0.0.1",
            "--main_process_port",
            "29501",
            "-m",
            "taiji.cli",
            "sft",
        ]
    )
    arguments, _, _ = _validate_launch_command(arguments)
    monkeypatch.undo()
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT" and not plugin.activation_checkpointing


def launched(*arguments: object) -> subprocess.CompletedProcess:
    """Two processes over gloo (accelerate's own launcher wants MPI for processors)."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "taiji.cli",
        *arguments,
    ]
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**environment(), "ACCELERATE_USE_CPU": "true"},
        timeout=900,
    )


def test_two_launched_processes_leave_the_model_of_one(small_config, tmp_path):
    config = load_config(small_config)
    Run(tmp_path / "one", config, ENHANCE, lambda text: None).execute(
        ["data", "examples", "reward", "rationales", "selection", "sft", "reward_table"]
    )
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("sft"))
    halves = [
        "--set",
        "reasoning.sft.batch_size=2",
        "--set",
        "alignment.micro_batch=2",
        "--set",
        "alignment.checkpoint_every=2",
    ]
    for stage in ("sft", "alignment"):
        done = launched(stage, small_config, "--name", "two", "--runs", tmp_path, *halves)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "sft" / "model" / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    losses = [pl.read_parquet(tmp_path / name / "sft" / "losses.parquet")["loss"].to_list() for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3), "as many updates, of the same rows"
    assert len((tmp_path / "two" / "alignment" / "metrics.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "two" / "alignment" / "model" / "model.safetensors").exists()


def test_other_stages_are_not_launched(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TaijiError, match="Stages other than training cannot run"):
        Run(tmp_path / "run", load_config(small_config), ENHANCE, lambda text: None).execute(["examples"])
