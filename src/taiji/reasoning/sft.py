"""Supervised fine-tuning on the kept rationales, with TRL (Taiji §4).

The loss is the next-token loss over the completion alone (`<think>…</think><answer>…</answer>` and the end-of-text
token). The result is a plain `save_pretrained` folder: adapters are merged, and no files of the trainer remain.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.errors import ConfigError, InputError
from taiji.core.optional import needs
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.language.adapters import trainable
from taiji.language.chat import continuation
from taiji.language.processes import check_gatherable, processes, whole_model
from taiji.language.token_ids import continued, ids_of
from taiji.reasoning.answers import format_completion
from taiji.reasoning.prompts import opened, student_prompts, true_answers
from taiji.reasoning.settings import PromptSettings, SFTSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from taiji.language.causal_lm import LanguageModel
    from taiji.reasoning.sft_trainer import PackedSFTTrainer


def sft_rows(
    dataset: Dataset,
    examples: pl.DataFrame,
    kept: pl.DataFrame,
    prompts: PromptSettings,
    tokenizer: PreTrainedTokenizerBase,
) -> pl.DataFrame:
    """Return the prompt and completion of each kept rationale.

    Args:
        dataset: the log.
        examples: ``example``, ``user``, ``as_of``, ``target`` and, where answers are sets, ``targets``.
        kept: ``example``, ``rationale``.
        prompts: prompts of the student.
        tokenizer: tokenizer of the student.

    Returns:
        ``prompt`` (rendered) and ``completion`` (rationale and true answer), in the order of ``kept``. A set answer is
        trained with at most ``intents`` of its items, drawn and ordered at random for each rationale, so that the
        student does not learn a particular order.
    """
    numbered = kept.select("example", "rationale", number=pl.int_range(pl.len()).over("example"))
    orders = 1 + int(numbered["number"].max() or 0)  # type: ignore[arg-type]
    answers = true_answers(dataset, examples, prompts, orders, prompts.most)
    known = student_prompts(dataset, examples, prompts, tokenizer).with_columns(
        pl.Series("answers", answers, dtype=pl.List(pl.String))
    )
    rows = numbered.join(known, on="example", how="inner", maintain_order="left")
    completions = [
        format_completion(rationale, texts[number if prompts.answer == "set" else 0])
        for rationale, texts, number in rows.select("rationale", "answers", "number").iter_rows()
    ]
    return pl.DataFrame({"prompt": rows["prompt"], "completion": pl.Series(completions, dtype=pl.String)})


def train_sft(
    lm: LanguageModel, rows: pl.DataFrame, settings: SFTSettings, folder: str | Path, seed: int
) -> pl.DataFrame:
    """Fine-tune a copy of ``lm``, and write it to ``folder`` atomically, in `save_pretrained` format.

    Args:
        lm: the student; it is not changed.
        rows: ``prompt``, ``completion``.
        settings: adapters or full fine-tuning, learning rate, sizes.
        folder: folder of the fine-tuned model.
        seed: random seed of the order of rows and of the adapters' initial values. On a CPU the same call gives the
            same bytes.

    With several processes (see :mod:`taiji.language.processes`), each one takes ``batch_size`` rows per batch, and the
    first one writes the folder.

    Returns:
        ``step``, ``loss``, one row per weight update.

    Raises:
        TaijiError: there are no rows, or one is longer than ``max_length``.
    """
    import torch

    from taiji.language.causal_lm import save_model

    with needs("llm"):
        from transformers.trainer_utils import set_seed
        from transformers.utils import logging

    if rows.is_empty():
        raise InputError(
            "There is no rationale to fine-tune on.",
            where="selection",
            fix="write more rationales, or choose a laxer selection rule",
        )
    taught = [token_row(lm.tokenizer, p, c) for p, c in rows.select("prompt", "completion").iter_rows()]
    _check_lengths(taught, settings)
    logging.disable_progress_bar()
    # The trainer draws from the global generators (order of rows, adapters' initial values), so they are seeded here.
    set_seed(seed)
    with tempfile.TemporaryDirectory(prefix="taiji-sft-") as scratch, torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL and PEFT use names that transformers 6 will remove
        trainer = _trainer(lm, taught, settings, scratch, seed)
        check_gatherable(trainer, settings.lora_rank)
        with progress("Fine-tuning", _updates(len(rows), settings), "updates") as update:
            trainer.add_callback(_showing(update))
            trainer.train()
        model = whole_model(lm, trainer, settings.lora_rank)
        losses = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
        if model is not None:
            save_model(model, lm.tokenizer, folder)
    return pl.DataFrame(losses, schema={"step": pl.UInt32, "loss": pl.Float64}, orient="row")


@dataclass(frozen=True)
class TokenRow:
    """Tokenized training row.

    Attributes:
        ids: the opened prompt, the completion and the end-of-text token.
        first: position of the first id that is in the loss.
    """

    ids: list[int]
    first: int


def token_row(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> TokenRow:
    """Return the token ids of a prompt and its completion. The prompt's ids are exactly those from which generation
    starts.

    In generation, the prompt already contains the opening `<think>`. The loss covers this tag nevertheless, so that the
    model can also be served without it.

    Args:
        tokenizer: tokenizer of the student.
        prompt: rendered prompt, without the opening `<think>`.
        completion: completion as returned by :func:`taiji.reasoning.answers.format_completion`.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            "The model has no end-of-text token, so it cannot learn where an answer ends.",
            where="language.model",
            expected="a tokenizer or a generation_config.json with an eos token",
            found=str(tokenizer.name_or_path or type(tokenizer).__name__),
            fix="add eos_token to the model's tokenizer_config.json",
        )
    begun = opened(prompt)
    row = continued(tokenizer, begun, continuation(begun, completion))
    asked = ids_of(tokenizer, prompt)
    shared = next((at for at, (a, b) in enumerate(zip(asked, row.ids)) if a != b), min(len(asked), row.first))
    return TokenRow([*row.ids, end], min(shared, row.first))


def _check_lengths(taught: Sequence[TokenRow], settings: SFTSettings) -> None:
    longest = max(len(row.ids) for row in taught)
    if longest > settings.max_length:
        raise InputError(
            "A row is too long for training.",
            where="reasoning.sft.max_length",
            expected=f"at most {settings.max_length} tokens",
            found=f"{longest}",
            fix="raise reasoning.sft.max_length or lower reasoning.prompts.token_budget",
        )


def _trainer(
    lm: LanguageModel, taught: Sequence[TokenRow], settings: SFTSettings, scratch: str, seed: int
) -> PackedSFTTrainer:
    import copy

    with needs("llm"):
        from datasets import Dataset as Rows
        from datasets import disable_progress_bars
        from transformers import PrinterCallback
        from trl import SFTConfig

        from taiji.reasoning.sft_trainer import IGNORED, PackedSFTTrainer

    disable_progress_bars()

    arguments = SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup_share * _updates(len(taught), settings)),
        max_length=settings.max_length,
        seed=seed,
        data_seed=seed,
        bf16=False,  # the weights keep their dtype; autocast of bfloat16 weights would only copy them
        gradient_checkpointing=False,
        use_cpu=lm.device.type == "cpu",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model, adapters = trainable(lm, settings.lora_rank)
    # Rows are given as ids: for texts, TRL would add the tokenizer's special tokens, which the prompts already contain.
    labels = [[IGNORED] * row.first + row.ids[row.first :] for row in taught]
    data = Rows.from_dict({"input_ids": [row.ids for row in taught], "labels": labels})
    tokenizer = copy.deepcopy(lm.tokenizer)
    trainer = PackedSFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=adapters
    )
    trainer.remove_callback(PrinterCallback)  # only taiji.core.progress shows progress
    return trainer


def _updates(rows: int, settings: SFTSettings) -> int:
    batches = math.ceil(rows / (settings.batch_size * processes()))
    return max(1, math.ceil(math.ceil(batches / settings.gradient_accumulation) * settings.epochs))


def _showing(update: Callable[[int], None]) -> TrainerCallback:
    """Return a trainer callback that updates the progress display."""
    from transformers import TrainerCallback

    class Showing(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            update(state.global_step)

    return Showing()
