"""Do PEPO's token weights help, and does it matter which tokens get them?

PEPO gives each token of a completion its own share of the advantage. Task: two 8 x 8 digits (scikit-learn's bundled
images) are read as 8 patches; a decoder with two layers of width 64 writes the chain "a+b=cc" and is rewarded if the
sum is right.

Arms: ``grpo`` (equal weights), ``pepo``, and the control ``shuffled``, PEPO's weights shuffled over the tokens of each
completion. Equal for all arms of a seed: the initial model, trained with supervision until it is partly right, and the
numbers of steps and rollouts. ``temperature``: of PEPO's softmax over the tokens, 1 as in the paper, and 0.1, which
makes weights less equal.

Columns: ``AUC``, the mean reward over all steps (area under the reward curve), with ``low`` and ``high``, a 95 %
interval over five seeds; ``start`` and ``end``, mean reward of the first 5 and last 20 steps; ``held out``, share of
right greedy answers on other images; ``spread``, mean over completions of the largest weight divided by the smallest.
Rows ``A - B (paired)`` have the difference in AUC, paired by seed, and a ``verdict``. PEPO helps only if it also beats
the shuffled control; this is reported, not checked. The checks are that a completion's weights have mean 1, and that
every arm learns.

    python -m benchmarks.token_weights [--quick] [--json benchmarks/results/token_weights.json]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Result, run
from taiji.alignment.tokens import blended, evidence_similarity, token_weights

PLUS, EQUALS, START, VOCABULARY, LENGTH = 10, 11, 12, 13, 6
GROUP, PROMPTS = 8, 8
ARMS = ("grpo", "pepo", "shuffled")
T95 = {1: 12.71, 2: 4.303, 4: 2.776, 9: 2.262}


class Adder(nn.Module):
    """Causal Llama of two layers and width 64 that reads the patches of two images, then the tokens of the chain."""

    def __init__(self) -> None:
        from transformers import LlamaConfig, LlamaModel

        super().__init__()
        self.patch, self.token, self.head = nn.Linear(16, 64), nn.Embedding(VOCABULARY, 64), nn.Linear(64, VOCABULARY)
        self.body = LlamaModel(
            LlamaConfig(
                vocab_size=VOCABULARY,
                bos_token_id=None,
                eos_token_id=None,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=4,
            )
        )

    def forward(self, patches: torch.Tensor, chain: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits (B, T + 1, V) of the T tokens of the chain and of the next token, and all hidden states."""
        start = torch.full_like(chain[:, :1], START) if chain.size(1) else torch.full((len(patches), 1), START)
        inputs = torch.cat([self.patch(patches), self.token(torch.cat([start, chain], 1))], 1)
        output = self.body(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        return self.head(output.last_hidden_state[:, 8:]), output.hidden_states

    @torch.no_grad()
    def sample(self, patches: torch.Tensor, greedy: bool = False) -> torch.Tensor:
        """Return sampled or greedy chains (B, 6)."""
        chain = torch.zeros(len(patches), 0, dtype=torch.long)
        for _ in range(LENGTH):
            logits = self(patches, chain)[0][:, -1]
            chosen = logits.argmax(1) if greedy else torch.multinomial(logits.softmax(1), 1)[:, 0]
            chain = torch.cat([chain, chosen[:, None]], 1)
        return chain


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images as patches (N, 4, 16) in [0, 1], and their digits (N,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    return images.unfold(1, 4, 4).unfold(2, 4, 4).reshape(-1, 4, 16), torch.tensor(digits.target)


def draw(
    images: torch.Tensor, labels: torch.Tensor, count: int, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ``count`` pairs of images with indices in [low, high). Return their patches (count, 8, 16) and correct
    chains (count, 6)."""
    chosen = torch.randint(low, high, (count, 2))
    a, b = labels[chosen[:, 0]], labels[chosen[:, 1]]
    total = a + b
    chains = torch.stack([a, torch.full_like(a, PLUS), b, torch.full_like(a, EQUALS), total // 10, total % 10], 1)
    return torch.cat([images[chosen[:, 0]], images[chosen[:, 1]]], 1), chains


def right(chain: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return (N,): 1.0 for each chain whose sum is right, 0.0 for the others."""
    return (chain[:, 4:] == truth[:, 4:]).all(1).float()


def warm_start(seed: int, steps: int) -> tuple[Adder, torch.Tensor, torch.Tensor]:
    """Return a model trained with supervision on a third of the images, so that some but not all rollouts are right,
    and the shuffled images and labels."""
    torch.manual_seed(seed)
    images, labels = data()
    order = torch.randperm(len(images))
    images, labels, model = images[order], labels[order], Adder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        patches, chains = draw(images, labels, 64, 0, 600)
        logits = model(patches, chains[:, :-1])[0]
        loss = nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), chains.reshape(-1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, images, labels


def reinforce(
    model: Adder, images: torch.Tensor, labels: torch.Tensor, arm: str, steps: int, seed: int, temperature: float
) -> dict[str, Any]:
    """Train by GRPO on further pairs of images, with token weights according to the arm, and return the metrics of the
    run."""
    torch.manual_seed(1000 + seed)
    shuffle = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.0)
    evidence, mask = (
        torch.ones(PROMPTS * GROUP, 8, dtype=torch.bool),
        torch.ones(PROMPTS * GROUP, LENGTH, dtype=torch.bool),
    )
    curve, spread, mean_error = [], [], 0.0
    for step in range(steps):
        patches, truth = (t.repeat_interleave(GROUP, 0) for t in draw(images, labels, PROMPTS, 600, 1400))
        chain = model.sample(patches)
        reward = right(chain, truth)
        grouped = reward.view(PROMPTS, GROUP)
        advantage = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)).reshape(-1, 1)
        logits, hidden = model(patches, chain)
        logs = logits[:, :-1].log_softmax(-1)
        weights = torch.ones_like(logs[:, :, 0])
        if arm != "grpo":
            entropy = -(logs.exp() * logs).sum(-1).detach()
            weights = token_weights(
                evidence_similarity([h.detach() for h in hidden], evidence, LENGTH), entropy, mask, 0.05, temperature
            )
            mean_error = max(mean_error, float((weights.mean(1) - 1).abs().max()))
            spread.append(float((weights.amax(1) / weights.amin(1)).mean()))
            if arm == "shuffled":
                order = torch.rand(weights.shape, generator=shuffle).argsort(1)
                weights = weights.gather(1, order)
            weights = blended(weights, step / steps)
        loss = -(advantage * weights * logs.gather(2, chain[:, :, None])[:, :, 0]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(float(reward.mean()))
    torch.manual_seed(5)
    patches, truth = draw(images, labels, 2000, 1400, len(images))
    return {
        "auc": float(np.mean(curve)),
        "start": float(np.mean(curve[:5])),
        "end": float(np.mean(curve[-20:])),
        "held out": float(right(model.sample(patches, greedy=True), truth).mean()),
        "spread": float(np.mean(spread or [1.0])),
        "mean error": mean_error,
    }


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over seeds and the bounds of its 95 % t interval."""
    half = T95[len(values) - 1] * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def measure(quick: bool) -> Result:
    """Compare all arms and temperatures over paired seeds."""
    seeds, warm, steps = (range(2), 200, 20) if quick else (range(5), 200, 250)
    result = Result()
    starts = {seed: warm_start(seed, warm) for seed in seeds}
    for temperature in (1.0,) if quick else (1.0, 0.1):
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        for seed in seeds:
            model, images, labels = starts[seed]
            for arm in ARMS:
                copy = Adder()
                copy.load_state_dict(model.state_dict())
                found[arm].append(reinforce(copy, images, labels, arm, steps, seed, temperature))
        auc = {arm: np.array([r["auc"] for r in rows]) for arm, rows in found.items()}
        for arm, rows in found.items():
            value, low, high = interval(auc[arm])
            result.rows.append(
                {
                    "temperature": temperature,
                    "arm": arm,
                    "AUC": value,
                    "low": low,
                    "high": high,
                    **{key: float(np.mean([r[key] for r in rows])) for key in ("start", "end", "held out", "spread")},
                }
            )
        for first, second in (("pepo", "grpo"), ("pepo", "shuffled"), ("shuffled", "grpo")):
            value, low, high = interval(auc[first] - auc[second])
            verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference shown"
            result.rows.append(
                {
                    "temperature": temperature,
                    "arm": f"{first} - {second} (paired)",
                    "AUC": value,
                    "low": low,
                    "high": high,
                    "verdict": verdict,
                }
            )
        result.at_most(
            f"temperature {temperature}: largest difference of a mean weight from 1",
            max(r["mean error"] for rows in found.values() for r in rows),
            1e-5,
        )
        for arm, rows in found.items():
            gain = float(np.mean([r["end"] - r["start"] for r in rows]))
            result.at_least(
                f"temperature {temperature}: {arm} learns, gain of the mean reward", gain, 0.0 if quick else 0.1
            )
    return result


if __name__ == "__main__":
    run(measure)
