"""The packed loss is TRL's: same losses, same parameters, with padding, accumulation and adapters."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from taiji.reasoning.sft_trainer import PackedSFTTrainer, unpadded

PAIRS = [
    ("milk and bread", " tea"),
    ("milk and bread", " coffee with milk"),
    ("rice", " beans and rice and tea"),
    ("a list of items to buy", " rice"),
] * 3


def trained(kind, lm, folder, rank: int) -> tuple[list[float], torch.Tensor]:
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=5, learning_rate=1e-2, completion_only_loss=True,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, seed=3,
    )  # fmt: skip
    adapters = (
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None
    )
    torch.manual_seed(3)
    rows = Dataset.from_dict({"prompt": [p for p, _ in PAIRS], "completion": [c for _, c in PAIRS]})
    trainer = kind(
        model=copy.deepcopy(lm.model),
        args=arguments,
        train_dataset=rows,
        processing_class=copy.deepcopy(lm.tokenizer),
        peft_config=adapters,
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("rank", [0, 4])
def test_same_as_trl(lm, tmp_path, rank, monkeypatch):
    seen = []
    monkeypatch.setattr("taiji.reasoning.sft_trainer.shared_logprobs", recorded(seen))
    losses, parameters = trained(PackedSFTTrainer, lm, tmp_path / "ours", rank)
    expected, expected_parameters = trained(SFTTrainer, lm, tmp_path / "trl", rank)
    assert len(seen) == 10, "the engine was used"
    assert losses == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(parameters, expected_parameters, atol=2e-4)
    assert losses[-1] < losses[0]


def recorded(seen: list):
    from taiji.language.prefix_forward import shared_logprobs

    def function(*arguments, **keywords):
        seen.append(len(arguments[1]))
        return shared_logprobs(*arguments, **keywords)

    return function


def test_a_model_the_engine_does_not_serve_goes_the_usual_way(lm, tmp_path, monkeypatch):
    monkeypatch.setattr("taiji.reasoning.sft_trainer.supports_sharing", lambda model: (False, "for this test"))
    monkeypatch.setattr("taiji.reasoning.sft_trainer.shared_logprobs", lambda *a, **k: pytest.fail("not served"))
    losses, _ = trained(PackedSFTTrainer, lm, tmp_path / "ours", 4)
    assert len(losses) == 5


def test_unpadded():
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])
    rows, starts = unpadded(
        ids, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]), torch.tensor([[-100, 6, 7, -100], [-100, -100, -100, 11]])
    )
    assert rows == [[5, 6, 7], [8, 9, 10, 11]]
    assert starts == [1, 3]
