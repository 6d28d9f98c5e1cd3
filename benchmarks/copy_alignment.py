"""Is it better, at equal cost, to align a writer of copy with a reward model, or to let that model choose the best of n
texts?

The world is `push` with the mechanism `wording`, in which copy (short texts about items) of one style has many
wordings. The *writer* is a tiny language model, fine-tuned on copy of one style in uniformly drawn wordings. Two reward
models are trained on the results of sends, as in `benchmarks.copywriting`: one of clicks, and one of kept promises
(clicks after which the reader found that the item is what the copy had promised). GRPO then aligns four clones of the
writer: with the reward of clicks, with the reward of kept promises, and with both, under equal weights and under POPO.

Cost is the number of texts that are generated and scored. Best of n costs n texts per item. Alignment costs its 3,840
rollouts once, and then one text per item. Values are true expected clicks and kept promises per 100 sends, on items
that neither the reward models nor GRPO have seen. A text that is not in the world's grammar counts as the item's worst
text. Means are over eight worlds, with Student's 95 % interval.

Predictions, stated before the first run: (1) alignment brings more clicks per item than one text of the writer before
alignment; (2) the best of 64 texts brings more clicks than alignment, which then equals the best of some smaller n, and
is cheaper from some number of items on (both are reported); (3) if the two rewards conflict, using both keeps more
promises than clicks alone. In a first run, on worlds 0 to 3, the two rewards were added without weights, which doubles
the step, and two of these three checks failed. In this version the weights of every arm sum to one, and the eight
worlds (4 to 11) had not been used before; the predictions are the same.

Rows, by ``part``: ``seed``, one per world, with the mean clicks and kept promises of every arm's texts after alignment
(``clicks kept``: kept promises of the writer aligned with clicks), and the share of texts in the grammar (``valid``);
``best of n by the reward of clicks``, one per n and metric; ``aligned with ARM: gain``, the difference from one text of
the writer before alignment; ``alignment equals best of n``, for each world the n at which best of n brings as many
clicks as alignment with clicks, and the number of items from which alignment is then cheaper; ``both under POPO −
clicks alone: kept``, the difference in kept promises between these two arms. Columns ``mean over worlds``, ``low over
worlds`` and ``high over worlds``; ``seeds`` has the means of the single worlds. A quick run has one small world and no
checks.

    python -m benchmarks.copy_alignment [--quick] [--json benchmarks/results/copy_alignment.json]
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Table

from benchmarks.environments.push_copies import Copies, all_copies, push_world, results_of
from benchmarks.harness import Result, run
from benchmarks.recommend import over_worlds
from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.rewards import Reward, for_trl
from taiji.copywriting.copy_categories import Category, CopyPrompt
from taiji.copywriting.copy_job import fitted_to_pairs
from taiji.copywriting.copy_pairs import copy_pairs
from taiji.copywriting.copy_rewards import copy_reward
from taiji.copywriting.evidence import Evidence, Fact
from taiji.copywriting.settings import CopyLimits, PairSettings
from taiji.core.progress import track
from taiji.language.causal_lm import LanguageModel
from taiji.language.embed import load_embedder
from taiji.language.generate import generate
from taiji.language.settings import GenerationSettings
from taiji.language.tiny import tiny_causal_lm, tiny_tokenizer
from taiji.metrics.best_of_n import value_of_best
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.copy import STYLES

Array = np.ndarray
SEEDS = range(4, 12)
"""Seeds of the worlds."""
NS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of texts among which the best is chosen."""
STYLE = "question"
"""Style of all texts of the writer; their wording is free."""
SAMPLING = GenerationSettings(max_new_tokens=48, temperature=1.0, batch_size=256)
STEPS = 60
"""Number of GRPO steps."""
LEARNING_RATE = 3e-4
"""Learning rate of GRPO, chosen among 1e-4, 3e-4 and 1e-3 in a world that is not evaluated. With 1e-3, the writer's
texts leave the grammar."""
GROUP, PROMPTS = 8, 8
"""Rollouts per prompt, and prompts per step."""
ARMS: dict[str, tuple[tuple[str, ...], str]] = {
    "clicks": (("clicks",), "fixed"),
    "kept": (("kept",), "fixed"),
    "both, equal weights": (("clicks", "kept"), "fixed"),
    "both, POPO": (("clicks", "kept"), "popo"),
}
"""Rewards and weighting rule of each arm."""


@dataclass(frozen=True, eq=False)
class Shop:
    """Items of a world, the true values of their copy, and the reward models.

    Attributes:
        titles: titles of all items.
        sent: number of items with sends. They come first; the writer is evaluated on the other items.
        copies: every copy of these other items, with its true values.
        rewards: rewards by name.
    """

    titles: list[str]
    sent: int
    copies: Copies
    rewards: dict[str, Reward]


def measure(quick: bool) -> Result:
    result = Result()
    found = []
    for seed in track(SEEDS[:1] if quick else SEEDS, "worlds", unit="worlds"):
        found.append(one_world(seed, quick))
        result.rows.append({"part": "seed", "what": seed, **{k: v for k, v in found[-1].items() if np.ndim(v) == 0}})
        result.so_far()
    if quick:
        return result
    for place, n in enumerate(NS):
        for name in ("clicks", "kept"):
            told = over_worlds([np.array([one[f"writer {name}"][place]]) for one in found])
            result.rows.append({"part": f"best of n by the reward of clicks: {name}", "n": n, **told})
    gains = {}
    for arm in ARMS:
        for name in ("clicks", "kept"):
            gain = over_worlds([np.array([one[f"{arm} {name}"] - one[f"writer {name}"][0]]) for one in found])
            gains[arm, name] = gain
            result.rows.append({"part": f"aligned with {arm}: gain of {name}", **gain})
    rollouts = float(found[0]["rollouts"])
    equal = [level(one["writer clicks"], one["clicks clicks"]) for one in found]
    result.rows.append({"part": "alignment equals best of n", "n": equal, "items from which it is cheaper": [rollouts / (n - 1) if n > 1 else np.inf for n in equal]})  # fmt: skip
    result.at_least(
        "lower end of aligned with clicks: gain of clicks over one completion",
        gains["clicks", "clicks"]["low over worlds"],
        0.0,
    )
    most = over_worlds([np.array([one["writer clicks"][-1] - one["clicks clicks"]]) for one in found])
    result.at_least("lower end of best of 64 − aligned, clicks", most["low over worlds"], 0.0)
    both = over_worlds([np.array([one["both, POPO kept"] - one["clicks kept"]]) for one in found])
    result.rows.append({"part": "both under POPO − clicks alone: kept", **both})
    result.at_least("lower end of kept promises: both under POPO − clicks alone", both["low over worlds"], 0.0)
    return result


def level(curve: Array, value: float) -> float:
    """Return the n at which a curve over :data:`NS` reaches a value, interpolated linearly in log n.

    The result is 1 if the curve begins at or above the value, and NaN if it never reaches the value.
    """
    if value <= curve[0]:
        return 1.0
    if value > curve[-1]:
        return float("nan")
    return float(2 ** np.interp(value, curve, np.log2(NS)))


def one_world(seed: int, quick: bool) -> dict[str, Any]:
    """Return the writer's values by n before alignment, and the mean value of each arm's texts after alignment."""
    shop = make_shop(seed, quick)
    writer, tokenizer = fine_tuned(seed, 60 if quick else 1500, shop.titles)
    samples = 8 if quick else 64
    found: dict[str, Any] = {"rollouts": (4 if quick else STEPS) * GROUP * PROMPTS}
    values, scores, valid = judged(shop, writer, tokenizer, samples, seed)
    found["writer valid"] = valid
    for name, table in values.items():
        ns = [n for n in NS if n <= samples]
        found[f"writer {name}"] = np.array(
            [np.mean([value_of_best(v, s, n) for v, s in zip(table, scores)]) for n in ns]
        )
    for arm, (rewards, weighting) in ARMS.items():
        aligned = aligned_writer(shop, writer, tokenizer, rewards, weighting, seed, 4 if quick else STEPS)
        after, _, valid = judged(shop, aligned, tokenizer, 4 if quick else 16, seed)
        found |= {f"{arm} {name}": float(table.mean()) for name, table in after.items()} | {f"{arm} valid": valid}
    return found


def make_shop(seed: int, quick: bool) -> Shop:
    """Return the items, the true values and the reward models of a world."""
    size = {"users": 600, "items": 60, "days": 14} if quick else {"users": 3000, "items": 200, "days": 28}
    world, embedder = push_world(seed, **size), load_embedder("wordllama")
    sent = round(0.8 * size["items"])
    results = results_of(world, sent, size["days"])
    titles = list(world.find(Content).titles)
    names = {"clicks": "clicks", "kept": "satisfied"}
    settings = {name: PairSettings(outcome=outcome, least_sends=20) for name, outcome in names.items()}  # type: ignore[arg-type]
    category = Category(STYLE, __file__, ())  # type: ignore[arg-type]
    prompts = {
        title: CopyPrompt(Evidence(title, 1, (Fact("title", "title", title, 0),)), category, [], "") for title in titles
    }
    rewards = {
        name: copy_reward(fitted_to_pairs(copy_pairs(results, one), embedder), prompts, CopyLimits())
        for name, one in settings.items()
    }
    copies = all_copies(world, np.arange(sent, size["items"]), 20 if quick else 60)
    return Shop(titles, sent, copies, rewards)


def asked(title: str) -> str:
    return f"title: {title}\ncopy:"


def fine_tuned(seed: int, steps: int, titles_known: list[str]) -> tuple[Any, Any]:
    """Return a tiny writer and its tokenizer. The writer is trained on copy of one style in uniformly drawn wordings,
    about invented products. The titles of the catalogue are only used for the tokenizer."""
    from taiji.world import grammar

    rng = np.random.default_rng([seed, 3])
    words, kinds = [w for topic in grammar.TOPICS for w in topic], [k[2].lower() for k in grammar.KINDS["shop"]]
    style = np.full(6000, list(STYLES).index(STYLE))
    titles = [f"{' '.join(rng.choice(words, rng.integers(1, 3), replace=False))} {rng.choice(kinds)}" for _ in style]
    texts = grammar.worded(grammar.copies(style, titles), rng.integers(0, 64, len(style)))
    lines = [f"{asked(title)} {text}" for title, text in zip(titles, texts)]
    tokenizer = tiny_tokenizer([*lines, *map(asked, titles_known)], vocabulary=700)
    model, _ = tiny_causal_lm(tokenizer, hidden=96, seed=seed)
    rows = [tokenizer(line + tokenizer.eos_token)["input_ids"] for line in lines]
    starts = [len(tokenizer(asked(title))["input_ids"]) for title in titles]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        batch = rng.integers(0, len(rows), 32)
        longest = max(len(rows[i]) for i in batch)
        ids = torch.tensor([rows[i] + [tokenizer.pad_token_id] * (longest - len(rows[i])) for i in batch])
        labels = ids.clone()
        for row, i in enumerate(batch):
            labels[row, : starts[i]] = -100
            labels[row, len(rows[i]) :] = -100
        loss = model(
            input_ids=ids, attention_mask=(labels != -100) | (ids != tokenizer.pad_token_id), labels=labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return model.eval(), tokenizer


def judged(shop: Shop, model: Any, tokenizer: Any, samples: int, seed: int) -> tuple[dict[str, Array], Array, float]:
    """Sample copy for the items without sends, and evaluate it.

    Returns:
        true values per 100 sends by name, (items, samples) each; rewards of clicks (items, samples); and the share of
        samples in the grammar.
    """
    titles = shop.titles[shop.sent :]
    rows = generate(
        LanguageModel(model, tokenizer, "writer"), [asked(t) for t in titles], n=samples, settings=SAMPLING, seed=seed
    )
    values = {name: np.zeros((len(titles), samples)) for name in ("clicks", "kept")}
    valid = 0
    for item, texts in enumerate(rows):
        places = {text: place for place, text in enumerate(shop.copies.texts[item].ravel().tolist())}
        known = [places.get(text.strip(), -1) for text in texts]
        valid += sum(place >= 0 for place in known)
        for name, table in (("clicks", shop.copies.clicks), ("kept", shop.copies.kept)):
            flat = table[item].ravel()
            values[name][item] = [flat[place] if place >= 0 else flat.min() for place in known]
    scores = shop.rewards["clicks"]([t for t in titles for _ in range(samples)], [text for row in rows for text in row])
    return (
        {name: 100 * table for name, table in values.items()},
        scores.reshape(len(titles), samples),
        valid / (len(titles) * samples),
    )


def aligned_writer(
    shop: Shop, writer: Any, tokenizer: Any, rewards: tuple[str, ...], weighting: str, seed: int, steps: int
) -> Any:
    """Return a copy of the writer after GRPO with these rewards on the items with sends."""
    from copy import deepcopy

    model, rng = deepcopy(writer), np.random.default_rng([seed, 4])
    titles = [shop.titles[i] for i in rng.integers(0, shop.sent, PROMPTS * steps)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = ParetoGRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[for_trl(name, shop.rewards[name]) for name in rewards],
            train_dataset=Table.from_dict({"prompt": [asked(title) for title in titles], "example": titles}),
            args=ParetoGRPOConfig(
                output_dir=folder, weighting=weighting, num_generations=GROUP, per_device_train_batch_size=GROUP * PROMPTS,
                max_completion_length=48, max_steps=steps, learning_rate=LEARNING_RATE, beta=0.0,
                reward_weights=[1 / len(rewards)] * len(rewards), seed=seed, save_strategy="no",
                use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, logging_strategy="no",
            ),
        )  # fmt: skip
        trainer.train()
    return model.eval()


if __name__ == "__main__":
    run(measure)
