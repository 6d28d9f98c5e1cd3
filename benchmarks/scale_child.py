"""Processes that :mod:`benchmarks.scale_out` starts, each of which prints its peak memory: write a synthetic log of any
size, or run stages."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

EVENTS_A_USER, ITEMS, BATCH = 100, 50_000, 1_000_000
YEAR = 365 * 86_400 * 1_000_000


def make(folder: Path, events: int) -> None:
    """Write a synthetic log as the folder of a dataset, one batch at a time, so that the whole log is never in
    memory."""
    import pyarrow.parquet as pq

    from taiji.core.artifacts import write_json, write_parquet
    from taiji.data.arrays import store_arrays
    from taiji.data.dataset import FORMAT

    users = max(20, events // EVENTS_A_USER)
    folder.mkdir(parents=True)
    aisle = np.arange(ITEMS) % 200
    items = pl.DataFrame(
        {
            "item": np.arange(ITEMS, dtype=np.uint32),
            "item_id": np.arange(ITEMS),
            "title": [f"thing {i}" for i in range(ITEMS)],
            "category_l1": [f"hall {a // 20}" for a in aisle],
            "category_l2": [f"aisle {a}" for a in aisle],
            "category_l3": pl.Series([None] * ITEMS, dtype=pl.String),
            "price": pl.Series([None] * ITEMS, dtype=pl.Float64),
        }
    )
    write_parquet(folder / "items.parquet", items)
    write_parquet(
        folder / "users.parquet", pl.DataFrame({"user": np.arange(users, dtype=np.uint32), "user_id": np.arange(users)})
    )
    writer, written = None, 0
    while written < events:
        rows = min(BATCH, events - written)
        rng = np.random.default_rng([7, written])
        low, high = (1_600_000_000_000_000 + YEAR * part // events for part in (written, written + rows))
        click = (rng.random(rows) < 0.3).astype(np.int8)
        frame = pl.DataFrame(
            {
                "event": np.arange(written, written + rows, dtype=np.uint32),
                "user": rng.integers(0, users, rows, dtype=np.uint32),
                "item": (ITEMS * rng.random(rows) ** 2).astype(np.uint32),
                "time": np.sort(rng.integers(low, high, rows)),
                "exposed": rng.random(rows) < 0.7,
                "click": click,
                "conversion": click & (rng.random(rows) < 0.2).astype(np.int8),
                "price": np.round(1 + 9 * rng.random(rows), 1),
            }
        ).with_columns(matured_at=pl.col("time") + 86_400_000_000)
        table = frame.select(
            "event", "user", "item", "time", "exposed", "click", "conversion", "matured_at", "price"
        ).to_arrow()
        writer = writer or pq.ParquetWriter(folder / "events.parquet", table.schema, compression="zstd")
        writer.write_table(table, row_group_size=250_000)
        written += rows
    assert writer is not None
    writer.close()
    write_json(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "name": "synthetic",
            "domain": "shop",
            "notes": [],
            "rows": {"users": users, "items": ITEMS, "events": events},
        },
    )
    store_arrays(folder)


def stages(run: Path, feature_users: int) -> None:
    """Run the stages `examples` and `features` in the folder of a run that has data and a language model. Then join the
    features to the exposures of the ranker period and of the test period, as of the time of each exposure."""
    from taiji.config import Config
    from taiji.features.partitioned import join_partitioned
    from taiji.pipeline.engine import Context
    from taiji.pipeline.run_data import load_split, stored
    from taiji.pipeline.stages.examples_stage import Examples
    from taiji.pipeline.stages.features_stage import Features

    size = {
        "rationale_prompts": 1000,
        "calibration_prompts": 100,
        "alignment_prompts": 200,
        "test_prompts": 500,
        "feature_users": feature_users,
        "chunk": 128,
    }
    config = Config.model_validate(
        {
            "size": size,
            "generation": {"max_new_tokens": 8},
            "reasoning": {"prompts": {"history_limit": 4, "token_budget": 1200}},
            "language": {"model": str(run / "alignment" / "model"), "dtype": "float32"},
        }
    )
    seconds, exposed = {}, 0
    for stage in (Examples(), Features()):
        name = stage.name
        context = Context(config, run / name, run / ".work" / name, run, stage.needs)
        context.folder.mkdir(exist_ok=True)
        start = time.perf_counter()
        stage.run(context)
        seconds[name] = round(time.perf_counter() - start, 1)
    dataset, split = stored(context), load_split(context)
    start = time.perf_counter()
    for period in ("ranker", "test"):
        files = join_partitioned(
            dataset,
            split,
            period,
            run / "features" / "taiji.parquet",
            run / "joined" / period,
            ("ids", "neighbour_items"),
        )
        exposed += sum(pl.scan_parquet(file).select(pl.len()).collect().item() for file in files)
    seconds["join"] = round(time.perf_counter() - start, 1)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "exposures": exposed,
                "feature_rows": len(pl.read_parquet(run / "features" / "taiji.parquet", columns=["user"])),
            }
        )
    )


def examples(run: Path, config: str) -> None:
    """Store a configuration in the folder of a run that has data, and run the stage `examples`."""
    from taiji.config import Config
    from taiji.pipeline.engine import Context
    from taiji.pipeline.stages.examples_stage import Examples

    settings = Config.model_validate_json(config)
    (run / "config.json").write_text(settings.model_dump_json())
    context = Context(settings, run / "examples", run / ".work" / "examples", run, ("data",))
    context.folder.mkdir()
    Examples().run(context)


def answers(run: Path, engine: str, workers: int, scratch: Path) -> None:
    """Let the base model answer the test prompts, as one stage over partitions. Print its seconds and a hash of the
    texts."""
    from taiji.config import Config
    from taiji.pipeline.completions import complete
    from taiji.pipeline.engine import Context
    from taiji.pipeline.partitions import LocalMapper, Mapper
    from taiji.pipeline.run_data import load_examples

    config = Config.model_validate_json((run / "config.json").read_text())
    start = time.perf_counter()
    mapper: Mapper = LocalMapper()
    if engine == "ray":
        from taiji.scale.ray_mapper import connect

        mapper = connect(None, config.scale.model_copy(update={"workers": workers}))
    connected = time.perf_counter()
    context = Context(config, scratch, scratch, run, ("data", "examples"), mapper)
    found = complete(context, load_examples(context, "test"), "base")
    written = hashlib.sha256("\n".join(found["completion"]).encode()).hexdigest()
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - connected,
                "start_s": connected - start,
                "prompts": len(found),
                "texts": written,
            }
        )
    )


def main() -> None:
    """Run the command of the arguments, and print the peak memory in GiB."""
    what, folder, *rest = sys.argv[1:]
    from taiji.core import progress

    progress.silence(True)
    if what == "make":
        make(Path(folder), int(rest[0]))
    elif what == "stages":
        stages(Path(folder), int(rest[0]))
    elif what == "examples":
        examples(Path(folder), rest[0])
    else:
        answers(Path(folder), rest[0], int(rest[1]), Path(rest[2]))
    print(json.dumps({"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main()
