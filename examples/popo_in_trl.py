"""Train with two conflicting rewards whose weights adapt. Compared with stock TRL, two class names and one argument
(`weighting`) differ.

The script runs in seconds on a tiny random model. Replace the model, the data and the rewards with yours.
"""

from datasets import Dataset

from taiji.alignment import (  # was: from trl import GRPOConfig, GRPOTrainer
    ParetoGRPOConfig,
    ParetoGRPOTrainer,
)
from taiji.language.tiny import tiny_causal_lm


def short(completions, **_):
    """Return higher rewards for completions with fewer characters."""
    return [-len(text) / 100 for text in completions]


def vowels(completions, **_):
    """Return higher rewards for completions with more vowels."""
    return [sum(letter in "aeiou" for letter in text) / 10 for text in completions]


model, tokenizer = tiny_causal_lm()
trainer = ParetoGRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[short, vowels],
    train_dataset=Dataset.from_dict({"prompt": ["milk and", "coffee with", "bread or", "tea for"] * 4}),
    args=ParetoGRPOConfig(
        output_dir="runs/popo_in_trl",
        weighting="popo",
        num_generations=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_completion_length=16,
        max_steps=4,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    ),
)
trainer.train()
for line in trainer.state.log_history:
    if "weight/short" in line:
        print(
            f"step {line['step']}: weight of short {line['weight/short']:.3f}, of vowels {line['weight/vowels']:.3f}, "
            f"largest change of a log weight {line['max_delta_log_weight']:.3f}"
        )
