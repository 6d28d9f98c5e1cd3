"""Growth of time and peak memory with each size, compared with the growth of the number of operations.

One size (*factor*) is raised at a time, and all others stay at their base values. The costs are

- language: an update (forward and backward pass) of SmolLM2-135M with LoRA, with completions of 96 tokens, by prompt
  length, group size (completions per prompt) and number of prompts (``users``); and the gradients of several rewards,
  by number of rewards;
- catalogue: exact search (``every vector``) and approximate search (``lists``) of a vector index, and a ranker's field
  of co-occurrences with the history, by number of items;
- events: building a data set from tables, computing the fields of a constant number of rows, and a training pass of a
  ranker with one row per ten events, by number of events in the log.

All cases of one cost are timed in turn in one process.

Each case is a row: ``of`` (cost), a column with the name of the factor, ``s`` (median seconds) and ``MB`` (growth of
the process's memory at its peak, in MiB); for updates also ``packed tokens``, the tokens that are processed if each
prompt is read once. After them comes a row with exponents, which are slopes of log cost on log factor (1 means
proportional growth): of the measured seconds (``seconds grow as its power``), of the counted operations
(``operations``), and of the memory. A check holds if the exponent of the seconds is at most 0.2 above that of the
operations.

    python -m benchmarks.cost_growth [--quick] [--json benchmarks/results/cost_growth.json]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import Result, in_turn, run
from benchmarks.measuring import Rates, Sizes, peak_memory, small_model
from benchmarks.ranking_stream import shop_tables

LOOSE = 0.2
"""Largest amount by which the exponent of the seconds may exceed that of the operations."""


@dataclass(frozen=True)
class Growth:
    """A cost as a function of one factor.

    Attributes:
        of: name of the cost.
        factor: name of the factor.
        values: values of the factor, ascending.
        actions: action to time for each value.
        operations: number of operations for each value; only its growth matters, so the unit is arbitrary.
        facts: further columns for each value.
    """

    of: str
    factor: str
    values: Sequence[int]
    actions: Sequence[Callable[[], Any]]
    operations: Sequence[float]
    facts: Sequence[dict[str, Any]]

    def measure(self, result: Result, repeats: int, check: bool) -> None:
        """Time the actions in turn, and add a row for each action, a row with the exponents, and the check."""
        seconds = [statistics.median(s) for s in in_turn(*self.actions, repeats=repeats)]
        memory = [peak_memory(action)[1] for action in self.actions]
        for value, second, megabytes, facts in zip(self.values, seconds, memory, self.facts):
            result.rows.append({"of": self.of, self.factor: value, **facts, "s": second, "MB": megabytes})
        growth, counted = slope(self.values, seconds), slope(self.values, self.operations)
        more = slope(self.values, memory) if min(memory) > 1 else float("nan")
        result.rows.append({"of": self.of, "factor": self.factor, "seconds grow as its power": growth, "operations": counted, "memory": more})  # fmt: skip
        result.so_far()
        if check:
            name = f"{self.of} by {self.factor}: exponent of the seconds, at most {LOOSE} above that of the operations"
            result.at_most(name, growth, counted + LOOSE)


def slope(factors: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of log cost on log factor; 0 if all costs are equal."""
    return float(np.polyfit(np.log(factors), np.log(costs), 1)[0])


def sequences(users: int, prompt: int, group: int, new: int) -> list[list[int]]:
    """Return token ids of random prompts with ``group`` completions each, one row per completion."""
    rng = np.random.default_rng(0)
    rows: list[list[int]] = []
    for _ in range(users):
        context = rng.integers(5, 200, prompt).tolist()
        rows += [context + rng.integers(5, 200, new).tolist() for _ in range(group)]
    return rows


def updater(model: Any, users: int, prompt: int, group: int, new: int) -> Callable[[], None]:
    """Return a function that runs forward and backward over ``users`` prompts with ``group`` completions each."""
    import torch

    from taiji.language.prefix_forward import shared_logprobs

    rows = sequences(users, prompt, group, new)

    def update() -> None:
        torch.cat(shared_logprobs(model, rows, [prompt] * len(rows)).logprobs).sum().backward()
        model.zero_grad()

    return update


def gradients(model: Any, rewards: int, prompt: int, group: int, new: int) -> Callable[[], None]:
    """Return a function that runs a forward pass over one prompt with ``group`` completions, and computes the gradient
    of each reward."""
    import torch

    from taiji.language.prefix_gradients import split_logprobs

    rows = sequences(1, prompt, group, new)
    parameters = [p for p in model.parameters() if p.requires_grad]
    advantages = torch.randn(rewards, group, generator=torch.Generator().manual_seed(0)).repeat_interleave(new, 1)

    def update() -> None:
        split = split_logprobs(model, rows, [prompt] * group)
        assert split is not None, "the model must support shared prefixes"
        for _ in split[1].products(advantages, parameters):
            pass

    return update


def language(quick: bool) -> list[Growth]:
    """Return the costs of an update and of the gradients of several rewards, not yet measured."""
    from peft import LoraConfig, get_peft_model

    from taiji.language.causal_lm import load_language_model
    from taiji.language.prefix_lora import fuse_adapters

    lm = small_model("float32") if quick else load_language_model(device="cpu")
    sizes = Sizes.of(lm.model)
    model = get_peft_model(
        lm.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"), autocast_adapter_dtype=False
    ).train()
    fuse_adapters(model)
    new = 16 if quick else 96
    base = {"users": 1, "prompt": 64 if quick else 512, "group": 4}
    ranges: dict[str, Sequence[int]] = (
        {"prompt": (64, 128, 256), "group": (4, 8, 16), "users": (1, 2, 4)}
        if quick
        else {"prompt": (128, 512, 850, 2048), "group": (4, 8, 16, 32), "users": (1, 2, 4, 8)}
    )
    one = Rates(1.0, 1.0)
    found = []
    for factor, values in ranges.items():
        cases = [{**base, factor: value} for value in values]
        work = [c["users"] * sizes.update_floor(c["prompt"], c["group"], new, one) for c in cases]
        facts = [{"packed tokens": c["users"] * (c["prompt"] + c["group"] * new)} for c in cases]
        actions = [updater(model, **case, new=new) for case in cases]
        found.append(Growth("update", factor, values, actions, work, facts))
    rewards = (1, 2, 4) if quick else (1, 2, 4, 8)
    prompt, group = base["prompt"], 4 if quick else 8
    # One forward pass, one backward pass through the completions, and one through the prompt for each reward.
    whole, alone = sizes.update_floor(prompt, group, new, one), sizes.update_floor(prompt, 0, new, one)
    work = [whole + (count - 1) * alone / 2 for count in rewards]
    takers = [gradients(model, count, prompt, group, new) for count in rewards]
    return [*found, Growth("gradients", "rewards", rewards, takers, work, [{}] * len(rewards))]


def catalogue(quick: bool) -> list[Growth]:
    """Return the costs that grow with the number of items, not yet measured."""
    from taiji.models.ranking.pair_fields import cooccurrence_match
    from taiji.models.retrieval.vector_index import VectorIndex

    values = (2_000, 4_000, 8_000) if quick else (10_000, 40_000, 160_000, 640_000)
    random = np.random.default_rng(0)
    queries = random.normal(size=(64, 64)).astype(np.float32)
    exact, lists, fields = [], [], []
    for count in values:
        vectors = random.normal(size=(count, 64)).astype(np.float32)
        for index, actions in ((VectorIndex(64, exact_below=count + 1), exact), (VectorIndex(64, exact_below=1), lists)):  # fmt: skip
            index.add(np.arange(count), vectors)
            actions.append(lambda i=index: i.search(queries, 100))
        neighbours, weights = random.integers(0, count, (count, 50)).astype(np.int32), np.ones((count, 50), np.float32)
        items, past = random.integers(0, count, (512, 1)), random.integers(0, count, (512, 50))
        fields.append(lambda n=neighbours, w=weights, i=items, p=past, c=count: cooccurrence_match(n, w, i, p, c))
    same, none = [1.0] * len(values), [{}] * len(values)
    return [
        Growth("retrieval, every vector", "items", values, exact, values, none),
        Growth("retrieval, lists", "items", values, lists, [n**0.5 + 0.05 * n for n in values], none),
        Growth("co-occurrence with the history", "items", values, fields, same, none),
    ]


def events(quick: bool) -> list[Growth]:
    """Return the costs that grow with the number of events, for constant numbers of users and items, not yet
    measured."""
    import polars as pl

    from taiji.data.dataset import Dataset
    from taiji.data.field_set import FieldSet
    from taiji.models.ranking.inputs import Inputs
    from taiji.models.ranking.ranker import ranker_class
    from taiji.models.ranking.training_loop import training_steps

    values = (5_000, 10_000, 20_000) if quick else (100_000, 200_000, 400_000, 800_000)
    users, items = (500, 500) if quick else (20_000, 20_000)
    tables = [shop_tables(count, users, items) for count in values]
    data = [Dataset.from_tables(t) for t in tables]
    random = np.random.default_rng(1)
    kind = ranker_class("target_attention")
    making, asking, passes = [], [], []
    for table, known, count in zip(tables, data, values):
        rows = count // 10
        click = (random.random(rows) < 0.3).astype(np.int8)
        frame = pl.DataFrame(
            {"user": random.integers(0, users, rows), "item": random.integers(0, items, rows), "time": 10**13 + np.sort(random.integers(0, 10**12, rows)), "click": click, "conversion": click}
        )  # fmt: skip
        ranker = kind(kind.Settings(pair_fields=(), device="cpu", batch=512))
        fields = FieldSet(ranker.fields(known, frame.columns)).fit(known, frame, int(frame["time"][0]))
        ranker.build(known, fields, ranker.learnt_tasks(known), "cpu")
        arrays = Inputs(known, fields, known.tasks).arrays(frame)
        ranker.network.prepare(arrays)
        step = training_steps(ranker, seed=0)
        some = frame.head(min(values) // 10)
        making.append(lambda t=table: Dataset.from_tables(t))
        asking.append(lambda k=known, f=fields, s=some: Inputs(k, f, k.tasks).arrays(s))
        passes.append(lambda s=step, a=arrays: s(a, np.arange(len(a))))
    none = [{}] * len(values)
    return [
        Growth("data set from tables", "events", values, making, values, none),
        Growth("fields of as many rows", "events", values, asking, [np.log(n) for n in values], none),
        Growth("a ranker's pass, a row for ten events", "events", values, passes, values, none),
    ]


def measure(quick: bool) -> Result:
    """Measure the growth of all costs."""
    result = Result()
    for growths in (language, catalogue, events):
        for growth in growths(quick):
            growth.measure(result, 2 if quick else 5, check=not quick)
    if quick:
        result.at_most("differences of the exponent of y = 3 x² from 2", abs(slope([1, 2, 4], [3, 12, 48]) - 2), 1e-9)
    return result


if __name__ == "__main__":
    run(measure)
