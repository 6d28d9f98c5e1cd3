"""Do PEPO's token weights help, beyond what any weights of the same sizes would do?

Two 8x8 digits (scikit-learn's bundled images) are read as 8 patches; a two-layer decoder of width 64 writes the chain
"a+b=cc", rewarded when the sum is right. The same warm-started model is trained by plain GRPO, by PEPO, and by a
control whose weights are PEPO's shuffled over the tokens of each completion. Equal rollouts, paired seeds; the figure
is the area under the reward curve. PEPO is claimed to help only if it beats the shuffled control, and the result is
reported whichever way it comes out. Checks: the mean weight of each completion is 1, and every arm learns.

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
    """Patches of two images, then the chain's tokens, through a causal two-layer Llama of width 64."""

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
        """Return logits (B, T + 1, V) for the chain's tokens and the next token, and all hidden states."""
        start = torch.full_like(chain[:, :1], START) if chain.size(1) else torch.full((len(patches), 1), START)
        inputs = torch.cat([self.patch(patches), self.token(torch.cat([start, chain], 1))], 1)
        output = self.body(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        return self.head(output.last_hidden_state[:, 8:]), output.hidden_states

    @torch.no_grad()
    def sample(self, patches: torch.Tensor, greedy: bool = False) -> torch.Tensor:
        chain = torch.zeros(len(patches), 0, dtype=torch.long)
        for _ in range(LENGTH):
            logits = self(patches, chain)[0][:, -1]
            chosen = logits.argmax(1) if greedy else torch.multinomial(logits.softmax(1), 1)[:, 0]
            chain = torch.cat([chain, chosen[:, None]], 1)
        return chain


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images as (N, 4, 16) patches in [0, 1], and their digits (N,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    return images.unfold(1, 4, 4).unfold(2, 4, 4).reshape(-1, 4, 16), torch.tensor(digits.target)


def draw(
    images: torch.Tensor, labels: torch.Tensor, count: int, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``count`` pairs of images with indices in [low, high): patches (N, 8, 16) and correct chains (N, 6)."""
    chosen = torch.randint(low, high, (count, 2))
    a, b = labels[chosen[:, 0]], labels[chosen[:, 1]]
    total = a + b
    chains = torch.stack([a, torch.full_like(a, PLUS), b, torch.full_like(a, EQUALS), total // 10, total % 10], 1)
    return torch.cat([images[chosen[:, 0]], images[chosen[:, 1]]], 1), chains


def right(chain: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return 1.0 for each chain whose sum is right and 0.0 for the others, (N,)."""
    return (chain[:, 4:] == truth[:, 4:]).all(1).float()


def warm_start(seed: int, steps: int) -> tuple[Adder, torch.Tensor, torch.Tensor]:
    """Return a model trained with supervision on a third of the images, so that only some rollouts are right."""
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
    """Run GRPO on fresh image pairs; the advantage of each token is weighted according to the arm."""
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
            f"temperature {temperature}: mean weight differs from one by at most",
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
