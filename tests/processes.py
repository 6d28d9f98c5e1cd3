"""Several processes of one training, as a launcher starts them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

SECONDS = 900


def launched(target: Callable[..., None], world: int, *arguments: Any) -> None:
    """Run ``target(rank, world, *arguments)`` in so many processes, and see that each comes to its end.

    They are started anew, not forked: threads do not survive a fork. What they find out they write to files.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_one, args=(target, rank, world, port, arguments)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=SECONDS)
    ended = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
    assert ended == [0] * world, ended


def sharded(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``build`` with a trainer that believes itself under FSDP and must not begin to train."""

    def built(*arguments: Any) -> Any:
        trainer = build(*arguments)
        trainer.is_fsdp_enabled = True
        trainer.train = lambda **_: pytest.fail("the error comes after hours of training")
        return trainer

    return built


def _one(target: Callable[..., None], rank: int, world: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
        TRL_EXPERIMENTAL_SILENCE="1",
    )
    import torch
    from accelerate.state import PartialState

    PartialState(cpu=True, backend="gloo" if world > 1 else None)
    torch.set_num_threads(1)
    gc.freeze()  # each training collects garbage, and would walk through all modules
    target(rank, world, *arguments)
    if world > 1:
        with suppress(RuntimeError):  # the other one has gone already
            torch.distributed.barrier()
    os._exit(0)  # gloo's threads may wait for a peer that has gone, and take a clean exit with them


def shard_on_cpu(on: bool) -> None:
    """Let accelerate shard by FSDP2, or copy by DDP, the models of trainers made from now on; by itself it shards on
    accelerators only."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    settings = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
    for name, value in settings.items():
        os.environ.pop(name, None)
        if on:
            os.environ[name] = value
    AcceleratorState._reset_state(reset_partial_state=False)
    if hasattr(AcceleratorState, "of_library"):
        return
    AcceleratorState.of_library = AcceleratorState.__init__

    def made(self: Any, *arguments: Any, fsdp_plugin: Any = None, **keywords: Any) -> None:
        AcceleratorState.of_library(self, *arguments, fsdp_plugin=fsdp_plugin, **keywords)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = made
