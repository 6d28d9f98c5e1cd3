"""RecTools' SASRec, driven line by line over standard input; runs in an environment of its own (``make peers``), not in taiji's.

Reads one JSON line of settings, then commands: ``epoch`` trains one epoch and answers its seconds, ``recommend`` answers a file
of the best items per user, ``quit`` ends. Imports nothing of taiji.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def main() -> None:
    """Serve the commands."""
    import logging

    logging.disable(logging.WARNING)
    import numpy as np
    import pandas as pd
    import torch
    from pytorch_lightning import Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    rows = np.load(settings["rows"])
    frame = pd.DataFrame(
        {
            Columns.User: rows["user"],
            Columns.Item: rows["item"],
            Columns.Datetime: pd.to_datetime(rows["time"], unit="us"),
            Columns.Weight: 1,
        }
    )
    dataset = Dataset.construct(frame)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False,
            enable_model_summary=False,
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=settings["layers"], n_heads=settings["heads"], n_factors=settings["width"],
        dropout_rate=settings["dropout"], session_max_len=settings["history"], batch_size=settings["batch"],
        lr=settings["learning_rate"], loss="sampled_softmax", n_negatives=settings["negatives"],
        get_trainer_func=trainer, recommend_torch_device="cpu",
    )  # fmt: skip
    print(json.dumps({"sequences": int((frame[Columns.User].value_counts() > 1).sum())}), flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        start = time.perf_counter()
        if command == "epoch":
            model.fit_partial(dataset, min_epochs=1, max_epochs=1)
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
        else:
            found = model.recommend(users=np.unique(rows["user"]), dataset=dataset, k=20, filter_viewed=True)
            np.savez(settings["out"], user=found[Columns.User], item=found[Columns.Item], rank=found[Columns.Rank])
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
