"""The log of a world under a policy, in the schema that all sources share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.world import grammar
from taiji.world.exposure import Exposure
from taiji.world.mechanisms.content import Content
from taiji.world.observation import SlatePolicy
from taiji.world.policies import make_policy
from taiji.world.world_time import DAY, to_micros

if TYPE_CHECKING:
    from taiji.world.world import World

Array = NDArray[Any]
HORIZON = DAY
"""Time in microseconds after a click until it is known whether a purchase follows."""
BEHAVIOURS = ("exposure", "view", "click", "cart", "buy")
"""Names of the last funnel step that a user reaches on a shown item."""


def run(world: World, policy: SlatePolicy, days: float) -> Iterator[Exposure]:
    """Reset the world, and yield every step of the first ``days`` days.

    The last slot may end later; the caller has to drop requests after ``days``.
    """
    world.reset()
    spare = 2 if world.scenario.task == "cache" or "load" in world.mechanisms else 1
    while world.slot * world.slot_days < days - 1e-9:
        yield world.step(policy.choose(world.observation, spare * world.scenario.slate))


def make_log(world: World, policy: SlatePolicy | str | None, days: int | None) -> Tables:
    """Return the log of a world; see :meth:`taiji.world.world.World.log`."""
    own = (part.own_log() for part in world.mechanisms.values()) if policy is None and days is None else ()
    if (given := next((tables for tables in own if tables is not None), None)) is not None:
        return given
    days = world.scenario.days if days is None else days
    name = policy if isinstance(policy, str) else world.scenario.policy if policy is None else type(policy).__name__
    chosen = make_policy(world.scenario.policy if policy is None else policy, world)
    columns = event_columns(world)
    found = [part.history(days) for part in world.mechanisms.values()]
    parts = [_rows(world, exposure, days, columns) for exposure in run(world, chosen, days)]
    if not any(len(part["time"]) for part in parts):
        raise InputError(
            "There are no requests within the time of the log.", where=f"world {world.scenario.name}",
            found=f"{world.scenario.users} users, {days} days", fix="simulate more days or users",
        )  # fmt: skip
    offsets = np.cumsum([0, *(part.pop("lists") for part in parts)])
    for offset, part in zip(offsets, parts):
        part["list_id"] = part["list_id"] + offset
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    parts.clear()
    frames = [_events(world, joined, columns), *(frame for frame in found if frame is not None)]
    events = pl.concat(frames, how="diagonal_relaxed") if len(frames) > 1 else frames[0]
    return Tables(
        items_table(world, days),
        users_table(world),
        events.sort("timestamp", "list_id", "position", maintain_order=True),
        world.scenario.name,
        world.scenario.domain,
        (
            f"Simulated world {world.scenario.name}, seed {world.seed}: synthetic users, items and responses.",
            f"Lists were chosen by the policy {name}; a propensity is the probability of an item at its position, given the candidates and the earlier positions (for a uniform choice: one over the number of available items).",
        ),
        columns,
    )


def event_columns(world: World) -> EventColumns:
    """Return the roles of the additional columns of the world's log."""
    parts = world.mechanisms.values()
    return EventColumns(
        labels=tuple(task for part in parts for task in part.labels),
        behaviour="behaviour",
        context=tuple(name for part in parts for name in part.context),
        bias=tuple(name for part in parts for name in part.bias),
        list_id="list_id",
        position="position",
        propensity="propensity",
    )


def items_table(world: World, days: float) -> pl.DataFrame:
    """Return the items born before day ``days``: titles, categories, and columns of mechanisms."""
    n, content = world.scenario.items, world.find(Content)
    columns: dict[str, Any] = {"item_id": np.arange(n)}
    if content is None:
        columns["title"] = [f"Thing {item}" for item in range(n)]
    else:
        kinds = grammar.KINDS.get(world.scenario.domain, grammar.ITEM_KINDS)
        columns["title"] = content.titles
        for level in range(3):
            columns[f"category_l{level + 1}"] = [kinds[k][level] for k in content.kind.tolist()]
    for part in world.mechanisms.values():
        columns |= part.item_columns()
    frame = pl.DataFrame(columns)
    return frame if content is None else frame.filter(pl.Series(content.born < days))


def users_table(world: World) -> pl.DataFrame:
    """Return the users with their segments and columns of mechanisms."""
    columns: dict[str, Any] = {"user_id": np.arange(world.scenario.users)}
    columns["segment"] = [f"s{s}" for s in world.traits["segment"].tolist()]
    for part in world.mechanisms.values():
        columns |= part.user_columns()
    return pl.DataFrame(columns)


def _rows(world: World, exposure: Exposure, days: float, columns: EventColumns) -> dict[str, Any]:
    """Return the shown positions of a step as flat columns of small dtypes; ``lists`` is the number of lists."""
    b, length = exposure.shape
    keep = (exposure.shown & (exposure.time < days)[:, None]).ravel()
    outcome = exposure.outcome

    def of_row(values: Array) -> Array:
        return np.repeat(values, length)[keep]

    stage = outcome["view"].astype(np.int8)
    for depth, name in enumerate(BEHAVIOURS[2:], start=2):
        if name in outcome:
            stage = np.where(outcome[name] == 1, np.int8(depth), stage)
    rows = {
        "lists": b,
        "user_id": of_row(exposure.user.astype(np.int32)),
        "item_id": exposure.items.ravel()[keep].astype(np.int32),
        "time": of_row(to_micros(exposure.time)),
        "click": outcome["click"].ravel()[keep].astype(np.int8),
        "stage": stage.ravel()[keep],
        "list_id": of_row(np.arange(b, dtype=np.int32)),
        "position": np.tile(np.arange(length, dtype=np.int16), b)[keep],
        "propensity": exposure.display["propensity"].ravel()[keep].astype(np.float32),
    }
    if "buy" in outcome:
        rows["conversion"] = outcome["buy"].ravel()[keep].astype(np.int8)
    for task in columns.labels:
        rows[task.name] = outcome[task.name].ravel()[keep].astype(np.float32)
    for name in columns.context:
        rows[name] = of_row(exposure.context[name])
    for name in columns.bias:
        values = exposure.display[name].ravel()[keep]
        rows[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
    return rows


def _events(world: World, rows: dict[str, Array], columns: EventColumns) -> pl.DataFrame:
    """Return flat columns as events, in the order of the rows."""
    time = pl.Series(rows.pop("time")).cast(pl.Datetime("us"))
    stage = rows.pop("stage")
    frame = pl.DataFrame({"timestamp": time, **rows})
    changes = [
        pl.Series("behaviour", stage).replace_strict(dict(enumerate(BEHAVIOURS)), return_dtype=pl.Categorical),
        pl.lit(True).alias("exposed"),
    ]
    if "conversion" in frame.columns:
        changes.append(
            pl.when(pl.col("click") == 1)
            .then(pl.col("timestamp") + pl.duration(microseconds=HORIZON))
            .otherwise(pl.col("timestamp"))
            .alias("matured_at")
        )
    content = world.find(Content)
    if content is not None:
        changes.append(pl.Series("price", content.price[frame["item_id"].to_numpy()]))
    whole = {"binary": pl.Int8, "survey": pl.Int8, "count": pl.Int32, "ordinal": pl.Int32}
    for task in columns.labels:
        value = pl.col(task.name).fill_nan(None)
        changes.append(value.cast(whole[task.kind]) if task.kind in whole else value)
    return frame.with_columns(changes)
