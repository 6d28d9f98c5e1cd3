"""Alignment job: from prompts and rewards to a merged model folder. An interrupted job resumes; on a CPU, its files
are byte for byte those of an uninterrupted job."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.alignment.checkpoint import STATE
from taiji.alignment.rewards import Reward, for_trl
from taiji.alignment.rollouts import LOG as ROLLOUTS
from taiji.alignment.rollouts import Rollouts
from taiji.alignment.settings import INTERMITTENT, STEERED, AlignmentSettings
from taiji.core.artifacts import make_folder, write_text
from taiji.core.errors import ConfigError, InputError
from taiji.core.optional import needs
from taiji.core.progress import progress
from taiji.language.adapters import trainable
from taiji.language.processes import check_gatherable, first_process, processes, whole_model
from taiji.language.token_ids import ids_of, text_of

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from taiji.alignment.trainer import ParetoGRPOTrainer
    from taiji.language.causal_lm import LanguageModel

LOG = "metrics.jsonl"


def align(
    lm: LanguageModel,
    examples: pl.DataFrame,
    rewards: Mapping[str, Reward],
    settings: AlignmentSettings,
    folder: str | Path,
    seed: int,
    *,
    scratch: str | Path | None = None,
) -> Path:
    """Align a copy of ``lm`` by GRPO with adaptive weights over the named rewards.

    The function writes ``folder/model`` (a plain `save_pretrained` folder, adapters merged, float32),
    ``folder/rollouts.parquet`` (a bounded sample of each step's completions with their rewards) and
    ``folder/metrics.jsonl`` with one line per step. A line has the keys ``step``, ``rewards`` (means), ``rewards_std``,
    ``weights``, ``indicator`` (these four by reward name), ``delta_log_w``, ``loss``, ``kl``, ``entropy``,
    ``completion_length`` and ``cut`` (share of completions cut at the length limit).

    ``scratch`` holds the checkpoints until the job is finished, and ``timings.jsonl`` with the seconds of each step. On
    a CPU the same call gives the same bytes, even if the job was interrupted and called again with the same
    ``scratch``.

    If there are several processes (see :mod:`taiji.language.processes`), they divide the rollouts of each step and use
    one ``scratch``; only the first process writes the results.

    Args:
        lm: model to start from; it is not changed.
        examples: columns ``example`` and ``prompt`` (rendered; tokenized without adding special tokens).
        rewards: functions of (examples, completions), by name.
        settings: weighting rule, batch sizes, learning rate.
        folder: folder for the results.
        seed: random seed of the order of prompts, the rollouts and the adapters' initial values.
        scratch: folder for checkpoints. Without it, an interrupted job starts again from the beginning.

    Returns:
        ``folder/model``.

    Raises:
        TaijiError: there is no reward, there are too few prompts for a step, the sizes do not divide evenly, or the
            number of weights differs from the number of rewards.
    """
    from taiji.language.causal_lm import save_model

    _check(examples, rewards, settings)
    kept = None if scratch is not None else tempfile.TemporaryDirectory(prefix="taiji-align-")
    work = Path(scratch) if scratch is not None else Path(kept.name)  # type: ignore[union-attr]
    try:
        make_folder(work)
        trainer, lines, rollouts = _trained(lm, examples, rewards, settings, work, seed)
        model = whole_model(lm, trainer, settings.lora_rank)
        if model is not None:
            model.generation_config = copy.deepcopy(lm.model.generation_config)
            model.config._name_or_path = ""
            save_model(model, lm.tokenizer, Path(folder) / "model")
            write_text(Path(folder) / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
            rollouts.save(Path(folder))
            shutil.rmtree(work / "checkpoints", ignore_errors=True)
    finally:
        if kept is not None:
            kept.cleanup()
    return Path(folder) / "model"


def _check(examples: pl.DataFrame, rewards: Mapping[str, Reward], settings: AlignmentSettings) -> None:
    if not rewards:
        raise InputError("There is no reward to align with.", expected="at least one named reward")
    if len(examples) < settings.prompts_per_step:
        raise InputError(
            "There are fewer prompts than one step needs.",
            where="alignment.prompts_per_step",
            expected=f"at least {settings.prompts_per_step} prompts",
            found=str(len(examples)),
            fix="lower alignment.prompts_per_step or raise size.alignment_prompts",
        )
    rollouts = settings.prompts_per_step * settings.generations
    if rollouts % (settings.micro_batch * processes()):
        together = f" in each of {processes()} processes" if processes() > 1 else ""
        raise ConfigError(
            "The rollouts of a step do not divide evenly into micro-batches.",
            where="alignment.micro_batch",
            expected=f"a number whose product with {processes()} (the number of processes) divides {rollouts}"
            if processes() > 1
            else f"a divisor of {rollouts}",
            found=f"{settings.micro_batch}{together}",
        )
    for name, weights in (("weights", settings.weights), ("preference", settings.preference)):
        if weights is not None and len(weights) != len(rewards):
            raise ConfigError(
                "The number of weights differs from the number of rewards.",
                where=f"alignment.{name}",
                expected=f"{len(rewards)} ({', '.join(rewards)})",
                found=str(len(weights)),
            )


def _trained(
    lm: LanguageModel,
    examples: pl.DataFrame,
    rewards: Mapping[str, Reward],
    settings: AlignmentSettings,
    work: Path,
    seed: int,
) -> tuple[ParetoGRPOTrainer, list[dict[str, Any]], Rollouts]:
    """Train from the last complete checkpoint in ``work``. Return the trainer, the log lines of all steps, and their
    rollouts."""
    import torch

    with needs("llm"):
        from transformers.trainer_utils import set_seed

    last = _last_checkpoint(work / "checkpoints")
    done = 0 if last is None else int(last.name.rsplit("-", 1)[1])
    lines = [line for line in _read_lines(work / LOG) if line["step"] <= done]
    if first_process():
        write_text(work / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    place = work if first_process() else work / f"process-{os.environ['RANK']}"  # each process keeps its own rollouts
    rollouts = Rollouts(
        place,
        list(rewards),
        settings.generations,
        [line for line in _read_lines(work / ROLLOUTS) if line["step"] <= done],
    )
    watched = {name: rollouts.watched(name, reward) for name, reward in rewards.items()}
    steps = settings.steps or math.ceil(len(examples) / settings.prompts_per_step)
    set_seed(seed)
    with torch.enable_grad(), progress("Aligning", steps, "steps") as update:
        trainer = _trainer(lm, examples, watched, settings, work, seed, steps)
        check_gatherable(trainer, settings.lora_rank)
        trainer.add_callback(_log(list(rewards), work, lines, rollouts, update))
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    return trainer, lines, rollouts


def _trainer(
    lm: LanguageModel,
    examples: pl.DataFrame,
    rewards: Mapping[str, Reward],
    settings: AlignmentSettings,
    work: Path,
    seed: int,
    steps: int,
) -> ParetoGRPOTrainer:
    with needs("llm"):
        from datasets import Dataset, disable_progress_bars
        from transformers import PrinterCallback
        from transformers.utils import logging

        from taiji.alignment.trainer import ParetoGRPOTrainer
        from taiji.alignment.trainer_config import ParetoGRPOConfig

    class Rendered(ParetoGRPOTrainer):
        """Trainer for rendered prompts that tokenizes and decodes like the rest of the package."""

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [ids_of(self.processing_class, prompt) for prompt in prompts], None, {}

        def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
            prompt_ids, completion_ids, mask, _, *rest = super()._generate(prompts)
            texts = [text_of(self.processing_class, ids) for ids in completion_ids]
            return prompt_ids, completion_ids, mask, texts, *rest

    disable_progress_bars()
    logging.disable_progress_bar()
    rollouts = settings.prompts_per_step * settings.generations
    arguments = ParetoGRPOConfig(
        output_dir=str(work / "checkpoints"),
        weighting=settings.weighting,
        popo_mode=settings.mode,
        gram_estimator=settings.estimator if settings.prompts_per_step > 1 else "same-batch",
        # A study runs all rules with the same settings, but only some rules support all of them.
        preference=list(settings.preference) if settings.preference and settings.weighting in STEERED else None,
        light_statistics=settings.light_statistics,
        reward_weights=list(settings.weights) if settings.weights else [1.0 / len(rewards)] * len(rewards),
        weight_every=settings.weight_every if settings.weighting in INTERMITTENT else 1,
        weight_warmup=settings.weight_warmup,
        token_weighting=settings.token_weighting,
        num_generations=settings.generations,
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=rollouts // (settings.micro_batch * processes()),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        beta=settings.beta,
        max_completion_length=settings.max_completion_tokens,
        temperature=settings.temperature,
        rollout_draw="uniform",
        use_vllm=settings.rollouts != "local",
        vllm_mode="server" if settings.rollouts == "vllm-server" else "colocate",
        vllm_server_base_url=settings.rollout_server if settings.rollouts == "vllm-server" else None,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=min(settings.checkpoint_every, steps),
        save_total_limit=2,
        bf16=False,  # compute in the dtype of the weights
        gradient_checkpointing=lm.device.type != "cpu",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=lm.device.type == "cpu",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model, adapters = trainable(lm, settings.lora_rank)
    if adapters is None and settings.beta:
        model.config._name_or_path = str(lm.save(work / "reference"))  # TRL reads the reference model from this path
    data = Dataset.from_dict({"prompt": examples["prompt"].to_list(), "example": examples["example"].to_list()})
    functions = [for_trl(name, reward) for name, reward in rewards.items()]
    trainer = Rendered(
        model=model,
        reward_funcs=functions,
        args=arguments,
        train_dataset=data,
        processing_class=copy.deepcopy(lm.tokenizer),
        peft_config=adapters,
    )
    trainer.remove_callback(PrinterCallback)  # only taiji.core.progress shows progress
    return trainer


def _log(
    names: list[str], work: Path, lines: list[dict[str, Any]], rollouts: Rollouts, update: Callable[[int], None]
) -> TrainerCallback:
    """Return a callback that writes TRL's logs to ``metrics.jsonl`` and updates the progress display."""
    from transformers import TrainerCallback

    class Log(TrainerCallback):
        clock = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if not logs or "max_delta_log_weight" not in logs:
                return
            line = {
                "step": state.global_step,
                "rewards": {name: logs.get(f"rewards/{name}/mean") for name in names},
                "rewards_std": {name: logs.get(f"rewards/{name}/std") for name in names},
                "weights": {name: logs.get(f"weight/{name}") for name in names},
                "indicator": {name: logs.get(f"indicator/{name}") for name in names},
                "delta_log_w": logs["max_delta_log_weight"],
                "loss": logs.get("loss"),
                "kl": logs.get("kl"),
                "entropy": logs.get("entropy"),
                "completion_length": logs.get("completions/mean_length"),
                "cut": logs.get("completions/clipped_ratio"),
            }
            lines.append(line)
            rollouts.close_step(state.global_step)
            now = time.monotonic()
            for file, entry in (
                ()
                if not first_process()
                else (
                    (LOG, line),
                    ("timings.jsonl", {"step": state.global_step, "seconds": round(now - self.clock, 3)}),
                )
            ):
                with (work / file).open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry, sort_keys=True) + "\n")
            self.clock = now
            update(state.global_step)

    return Log()


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, and remove incomplete ones."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / STATE).exists():
            whole.append(path)
        elif first_process():
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a log; the last one may have been truncated when the process was killed."""
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
