"""Choose marketing copy with a reward model trained on the results of sends, and use the same model as a reward of
GRPO.

The script runs in seconds, because example sentences replace the language model, and a simulated reader replaces yours.
"""

import tempfile

import numpy as np
import polars as pl

from taiji.copywriting.copy_categories import copy_categories, copy_prompt
from taiji.copywriting.copy_job import reward_model_of, write_copies
from taiji.copywriting.copy_rewards import copy_reward
from taiji.copywriting.copy_writers import RulesCopyWriter
from taiji.copywriting.evidence import gather_evidence
from taiji.copywriting.settings import CopywritingSettings
from taiji.language.embed import load_embedder

WORDS = ("Alpine", "Desert", "Winter", "Circus", "Robot", "Yoga", "Noir", "Opera", "Rally", "Puppy", "Camel", "Snow")
items = pl.DataFrame({"item_id": range(12), "title": [f"{word} lamp" for word in WORDS]})
evidence = gather_evidence(items, levels=(), as_of=1, listed=[0] * len(items))
settings = CopywritingSettings(kind="rules", exploration=0.1)
categories = copy_categories(settings, "shop")

with tempfile.TemporaryDirectory() as folder:
    first = write_copies(evidence, categories, RulesCopyWriter(), settings, folder, seed=0)
    print(f"round 1: {first['copy'].is_not_null().sum()} copies, all with propensity {first['propensity'][0]:.3f}")

    # Replace these results with your own. The simulated reader likes questions, above all "Ready for …?".
    rate = 0.05 + 0.05 * (first["category"] == "question") + 0.1 * first["copy"].str.starts_with("Ready")
    clicks = np.random.default_rng(0).binomial(500, rate.to_numpy())
    results = first.select("item_id", "copy", "category", sends=pl.lit(500), clicks=clicks, satisfied=clicks // 2)

    model = reward_model_of(results, load_embedder("wordllama"), settings.pairs)
    second = write_copies(evidence, categories, RulesCopyWriter(), settings, folder, seed=0, model=model)
    for row in second.filter(pl.col("chosen")).head(3).iter_rows(named=True):
        print(
            f"round 2: {row['copy']}  quality {row['quality']:+.2f}, prior {row['prior']:+.2f}, propensity {row['propensity']:.2f}"
        )

question = next(category for category in categories if category.name == "question")
reward = copy_reward(model, {"lamp": copy_prompt(evidence[0], question, settings)}, settings.limits)
said = ["Ready for Alpine lamp?", "Do you know Alpine lamp?", "Ready for a Rolex?"]
for text, value in zip(said, reward(["lamp"] * 3, said)):
    print(f"reward of {text!r}: {value:.2f}")
