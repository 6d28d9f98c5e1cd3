"""Random ranking graphs over two inputs, one of the request and one of the candidates, for the tests of the
rewriter."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from taiji.models.ranking.graph_colours import Sides

REQUESTS, TIMES, WIDTH = 3, 4, 5
SIDES = Sides(
    like="item",
    rows="user",
    tiled=frozenset({"user", "seen"}),
    tables=frozenset({"items"}),
    columns={"numbers": (0, 2)},
)


class RandomGraph(nn.Module):
    """Steps drawn at random: linear layers, activations, concatenations, products, slices, and norms of either side."""

    def __init__(self, seed: int, steps: int = 14) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.table = nn.Embedding(11, WIDTH)
        self.steps: list[tuple[Any, ...]] = []
        self.layers = nn.ModuleList()
        values = [(WIDTH, "u"), (WIDTH, "i"), (4, "m"), (WIDTH, "u"), (WIDTH, "i")]
        for _ in range(steps):
            kind = draw.choice(["linear", "linear", "cat", "cat", "act", "product", "sum", "slice", "norm", "wide"])
            at = draw.randrange(len(values))
            width, side = values[at]
            if kind == "linear":
                self.layers.append(nn.Linear(width, WIDTH, bias=draw.random() < 0.7))
                self.steps.append((kind, at, len(self.layers) - 1))
                values.append((WIDTH, "u" if side == "u" else "i"))
            elif kind == "norm" and side != "m":
                self.layers.append(draw.choice([nn.LayerNorm(width), nn.BatchNorm1d(width)]))
                self.steps.append(("linear", at, len(self.layers) - 1))
                values.append((width, side))
            elif kind == "act":
                self.layers.append(draw.choice([nn.ReLU(), nn.Tanh(), nn.Dropout(0.3), nn.Sigmoid()]))
                self.steps.append(("linear", at, len(self.layers) - 1))
                values.append((width, side))
            elif kind in ("cat", "wide"):
                others = [draw.randrange(len(values)) for _ in range(draw.choice([2, 3]))]
                self.steps.append(("cat", others))
                sides = {values[other][1] for other in others}
                values.append((sum(values[o][0] for o in others), sides.pop() if len(sides) == 1 else "m"))
            elif kind in ("product", "sum"):
                same = [n for n, other in enumerate(values) if other[0] == width]
                other = draw.choice(same)
                sides = {side, values[other][1]}
                self.steps.append((kind, at, other))
                values.append((width, sides.pop() if len(sides) == 1 else "m"))
            elif kind == "slice" and width > 2:
                start = draw.randrange(width - 1)
                stop = draw.randrange(start + 1, width)
                self.steps.append((kind, at, start, stop))
                values.append((stop - start, side))
        total = sum(width for width, _ in values)
        self.head = nn.Linear(total, 2)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return logits."""
        table = torch.tanh(self.table(batch["items"]))
        looked = [torch.nn.functional.embedding(batch[name], table) for name in ("seen", "asked")]
        values = [batch["user"], batch["item"], batch["numbers"], *looked]
        for kind, *about in self.steps:
            if kind == "linear":
                made = self.layers[about[1]](values[about[0]])
            elif kind == "cat":
                made = torch.cat([values[place] for place in about[0]], dim=1)
            elif kind == "product":
                made = values[about[0]] * values[about[1]]
            elif kind == "sum":
                made = values[about[0]] + values[about[1]]
            else:
                made = values[about[0]][:, about[1] : about[2]]
            values.append(made)
        return self.head(torch.cat(values, dim=1))


def split_batch(seed: int = 0, requests: int = REQUESTS, times: int = TIMES) -> dict[str, torch.Tensor]:
    """Return split inputs of a random graph in float64."""
    torch.manual_seed(seed)
    table = torch.randint(0, 11, (6,))
    return {
        "user": torch.randn(requests, WIDTH).double(),
        "seen": torch.randint(0, 6, (requests,)),
        "request_numbers": torch.randn(requests, 2).double(),
        "request_items": table,
        "item": torch.randn(requests * times, WIDTH).double(),
        "asked": torch.randint(0, 6, (requests * times,)),
        "numbers": torch.randn(requests * times, 2).double(),
        "items": table,
    }
