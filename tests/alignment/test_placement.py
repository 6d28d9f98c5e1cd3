"""Two processes against one, and parameters sharded over two processes against whole ones on each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tests.alignment.jobs import build_job, length, spaces, vowels
from tests.alignment.rollouts import fixed_rollouts
from tests.processes import launched, shard_on_cpu
from trl import GRPOConfig, GRPOTrainer

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.placement import Placement
from taiji.core.errors import ConfigError
from taiji.language.tiny import tiny_causal_lm

REWARDS = {"vowels": vowels, "spaces": spaces, "length": length}
STEPS = 10
CASES: dict[str, dict[str, Any]] = {
    "cross-batch": {"gram_estimator": "cross-batch"},
    "directional": {"gram_estimator": "directional"},
    "one-prompt-a-process": {"gram_estimator": "cross-batch", "rows": 8},
    "directional-one-prompt": {"gram_estimator": "directional", "rows": 8},
    "accumulated": {"gram_estimator": "cross-batch", "gradient_accumulation_steps": 2, "rows": 8},
    "lora-kl-trl": {"gram_estimator": "same-batch", "aggregation": "trl", "beta": 0.05, "lora": True},
    "sampled": {"num_iterations": 2, "rollouts": None, "max_steps": 4},
    "mgda": {"weighting": "mgda"},
}
OFTEN = ("cross-batch", "one-prompt-a-process", "directional-one-prompt", "sampled")
"""Cases that are always run; the others are slow."""


def trained(folder: Path, name: str, world: int, **further: Any) -> Any:
    """Train ``STEPS`` steps, on rollouts that do not depend on the model unless the case says otherwise."""
    options = {
        "max_steps": STEPS,
        "optim": "sgd",
        "learning_rate": 0.5,
        "share_prefixes": False,
        "rewards": REWARDS.values(),
    }
    options |= {"rows": 16, **CASES.get(name, {}), **further}
    options["per_device_train_batch_size"] = options.pop("rows") // world
    if options.pop("lora", False):
        options["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    rollouts = options.pop("rollouts", fixed_rollouts)
    # In float64: ways that add up in another order differ by 1e-6 of an indicator in float32, and a fault of that size
    # would pass.
    model = tiny_causal_lm(hidden=32, layers=2, heads=4)[0].double()
    trainer = build_job(folder, ParetoGRPOTrainer, ParetoGRPOConfig, model=model, **options)
    trainer.rollout_func = rollouts
    trainer.train()
    return trainer


def keep(trainer: Any, path: Path) -> None:
    """Write weights, indicators and whole parameters at the end."""
    parameters = list(trainer.model.parameters())
    lines = trainer.state.log_history[:-1]
    np.savez(
        path,
        parameters=np.concatenate(
            [getattr(p, "full_tensor", lambda p=p: p)().detach().numpy().ravel() for p in parameters]
        ),
        weights=trainer.rule.weights,
        indicators=[[line.get(f"indicator/{name}", 0.0) for name in REWARDS] for line in lines],
        sharded=type(parameters[0]).__name__ == "DTensor",
    )


def run_all(rank: int, world: int, folder: Path, names: tuple[str, ...], further: bool) -> None:
    for name in names:
        for sharded in (False, True)[:world]:
            shard_on_cpu(sharded)
            keep(
                trained(folder, name, world), folder / f"{name}-{'sharded' if sharded else 'whole'}-{world}-{rank}.npz"
            )
    shard_on_cpu(False)
    if further and world > 1:
        collectives = {
            f"{cls.__name__}-{count}": counted(folder, cls, count)
            for cls in (GRPOTrainer, ParetoGRPOTrainer)
            for count in (2, 8)
        }
        (folder / f"collectives-{rank}.json").write_text(json.dumps(collectives))
        share_under_ddp(folder, rank)
        draw_again(folder, rank)


def draw_again(folder: Path, rank: int) -> None:
    """Groups of three rollouts, some of which lie on both processes, for prompts of which half have no signal."""
    options = {"num_generations": 3, "rows": 12, "max_steps": 2, "dynamic_sampling": 9, "rewards": [half]}
    trainer = trained(folder, "", 2, gram_estimator="same-batch", **options)
    keep(trainer, folder / f"again-{rank}.npz")
    (folder / f"again-{rank}.json").write_text(
        json.dumps({"prompts": list(trainer._logs["prompt"]), "log": trainer.state.log_history[:-1]})
    )


def half(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [value if " " in prompt else 0.5 for prompt, value in zip(prompts, length(completions))]


def counted(folder: Path, cls: Any, count: int) -> int:
    """Collectives of one training step, those of DDP's reducer included."""
    config = ParetoGRPOConfig if cls is ParetoGRPOTrainer else GRPOConfig
    trainer = build_job(folder, cls, config, rewards=[vowels] * count, max_steps=1)
    trainer.rollout_func = fixed_rollouts
    step, found = trainer.training_step, Counter()

    def watched(*arguments: Any) -> torch.Tensor:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            loss = step(*arguments)
        found.update(event.name for event in profile.events() if event.name.startswith("c10d::"))
        return loss

    trainer.training_step = watched
    trainer.train()
    return found.total()


def share_under_ddp(folder: Path, rank: int) -> None:
    """A reward rule's loss goes through DDP's wrapper; its prompts are shared as well."""
    from taiji.alignment import sharing

    stock, calls = sharing.shared_logprobs, []
    sharing.shared_logprobs = lambda *a, **k: calls.append(torch.is_grad_enabled()) or stock(*a, **k)
    for shared in (False, True):
        more = {"weighting": "popo-light", "share_prefixes": shared, "gradient_accumulation_steps": 2, "max_steps": 2}
        keep(trained(folder, "", 2, rows=8, **more), folder / f"light-{shared}-{rank}.npz")
    assert calls.count(True) == 4, "one recorded forward a micro-batch"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placement")
    for world in (1, 2):
        launched(run_all, world, folder, OFTEN if world > 1 else (OFTEN[0], OFTEN[2]), True)
    return folder


def loaded(folder: Path, *names: str) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(folder / f"{name}.npz")) for name in names]


@pytest.mark.parametrize("name", [OFTEN[0], OFTEN[2]])
def test_two_processes_take_the_steps_of_one(runs, name):
    one, first, second = loaded(runs, f"{name}-whole-1-0", f"{name}-whole-2-0", f"{name}-whole-2-1")
    assert np.array_equal(first["parameters"], second["parameters"]), "processes agree to the bit"
    assert np.array_equal(first["weights"], second["weights"])
    assert np.allclose(one["parameters"], first["parameters"], atol=2e-6)
    assert np.allclose(one["weights"], first["weights"], atol=1e-5)
    assert np.allclose(one["indicators"], first["indicators"], rtol=5e-3, atol=1e-4)


def check_sharded(folder: Path, name: str) -> None:
    whole, first, second = loaded(folder, f"{name}-whole-2-0", f"{name}-sharded-2-0", f"{name}-sharded-2-1")
    assert first["sharded"] and not whole["sharded"]
    for what in ("parameters", "weights", "indicators"):
        assert np.array_equal(first[what], second[what]), "processes agree to the bit"
    assert np.abs(whole["parameters"] - first["parameters"]).max() < 1e-6
    assert np.abs(whole["weights"] - first["weights"]).max() < 1e-6
    rounding = 1e-3 if "directional" in name else 1e-6  # of a difference of log-probabilities
    assert np.abs(whole["indicators"] - first["indicators"]).max() <= rounding * np.abs(whole["indicators"]).max()
    assert np.ptp(whole["weights"]) > 1e-3, "the weights have moved"


@pytest.mark.parametrize("name", OFTEN)
def test_sharded_parameters_take_the_steps_of_whole_ones(runs, name):
    check_sharded(runs, name)


@pytest.mark.slow
def test_sharded_parameters_take_the_steps_of_whole_ones_in_every_form(tmp_path):
    launched(run_all, 2, tmp_path, tuple(CASES), False)
    for name in CASES:
        check_sharded(tmp_path, name)


def test_processes_wait_for_each_other_as_often_whatever_the_number_of_rewards(runs):
    for rank in (0, 1):
        found = json.loads((runs / f"collectives-{rank}.json").read_text())
        stock = found["GRPOTrainer-2"]
        assert stock == found["GRPOTrainer-8"] > 0
        assert found["ParetoGRPOTrainer-2"] == found["ParetoGRPOTrainer-8"] <= stock + 2


def test_prompts_are_shared_under_data_parallelism_for_rules_without_gradients(runs):
    """That they were is asserted where they ran."""
    alone, _, shared, other = loaded(runs, *(f"light-{shared}-{rank}" for shared in (False, True) for rank in (0, 1)))
    assert np.array_equal(shared["parameters"], other["parameters"])
    assert np.abs(alone["parameters"] - shared["parameters"]).max() < 2e-6
    assert np.array_equal(alone["weights"], shared["weights"])


def test_processes_draw_the_same_groups_again(runs):
    first, second = loaded(runs, "again-0", "again-1")
    assert np.array_equal(first["parameters"], second["parameters"])
    seen = [json.loads((runs / f"again-{rank}.json").read_text()) for rank in (0, 1)]
    assert seen[0]["prompts"] == seen[1]["prompts"] and len(seen[0]["prompts"]) == 12
    assert all(" " in prompt for prompt in seen[0]["prompts"])
    assert all(len(set(seen[0]["prompts"][at : at + 3])) == 1 for at in range(0, 12, 3))
    lines = seen[0]["log"]
    assert max(line["dynamic_sampling/extra_rollouts"] for line in lines) > 0
    assert [line["dynamic_sampling/left"] for line in lines] == [0.0, 0.0]


def test_parameters_that_do_not_lie_alike_are_named(monkeypatch):
    class Part(torch.Tensor):
        device_mesh, placements = "mesh", ()

    monkeypatch.setattr("taiji.alignment.placement.DTensor", Part)
    with pytest.raises(ConfigError, match="1 unsharded, 1 sharded"):
        Placement.of(torch.nn.Linear(2, 2), [torch.zeros(2), torch.zeros(2).as_subclass(Part)], 2, lambda t: t)
