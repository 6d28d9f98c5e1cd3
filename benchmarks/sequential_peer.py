"""RecTools' SASRec for :mod:`benchmarks.sequential`, in a process and an environment of its own (``make peers``).

The process reads one line of settings (JSON) from standard input, then commands. ``epoch`` trains one more epoch and
prints its seconds of processor time. ``recommend`` writes the best items of each user to a file and prints their
number. ``quit`` ends the process. All epochs belong to one call of the model's ``fit``, which pauses at the end of each
epoch, because every call of ``fit`` would start with a new state of the optimiser. The script imports nothing from
taiji.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def main() -> None:
    """Read the settings, then execute the commands."""
    import logging

    logging.disable(logging.WARNING)
    import numpy as np
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer
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

    def answer(**values: float) -> None:
        print(json.dumps(values), flush=True)

    class Steps(Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            self.start = time.process_time()

        def on_train_epoch_end(self, *_: object) -> None:
            answer(seconds=time.process_time() - self.start)
            for line in sys.stdin:
                if line.strip() == "epoch":
                    return
                if line.strip() == "quit":
                    break
                model.is_fitted = True
                found = model.recommend(users=np.unique(rows["user"]), dataset=dataset, k=20, filter_viewed=True)
                np.savez(settings["out"], user=found[Columns.User], item=found[Columns.Item], rank=found[Columns.Rank])
                model.lightning_model.train()
                answer(rows=len(found))
            sys.exit()

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=10**6, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False,
            enable_model_summary=False, callbacks=[Steps()],
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=settings["layers"], n_heads=settings["heads"], n_factors=settings["width"],
        dropout_rate=settings["dropout"], session_max_len=settings["history"], batch_size=settings["batch"],
        lr=settings["learning_rate"], loss=settings["loss"], n_negatives=settings["negatives"],
        get_trainer_func=trainer, recommend_torch_device="cpu",
    )  # fmt: skip
    answer(sequences=int((frame[Columns.User].value_counts() > 1).sum()))
    if sys.stdin.readline().strip() == "epoch":
        model.fit(dataset)


if __name__ == "__main__":
    main()
