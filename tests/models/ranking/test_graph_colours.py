"""Networks that are traced while other threads compute: the service loads a release while it serves another one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import nn

from taiji.models.ranking.graph_colours import trace
from taiji.nn.field_embeddings import Batch


class Interrupted(nn.Module):
    """Network that lets another thread act in the middle of its forward pass."""

    def __init__(self, act: Callable[[nn.Linear], None]) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(3, 1), act

    def forward(self, batch: Batch) -> torch.Tensor:
        self.act(self.layer)
        return self.layer(batch["item"])  # type: ignore[no-any-return]


def within_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_another_thread_computes_as_ever_while_a_network_is_traced() -> None:
    other, values, found = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(4, 3), []
    expected = other(values)

    def act(layer: nn.Linear) -> None:
        within_thread(lambda: found.append(other(values)))
        within_thread(lambda: found.append(layer(values)))
        within_thread(lambda: found.append(layer.weight))

    network = Interrupted(act)
    graph = trace(network, ["item"])

    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], network.layer(values))
    assert found[2] is network.layer.weight
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "output"]


def test_two_threads_trace_in_turn_and_leave_modules_as_they_were() -> None:
    before = nn.Module.__call__, nn.Module.__getattr__
    inside, ended = threading.Event(), threading.Event()
    graphs, threads = [], []

    def second(layer: nn.Linear) -> None:
        inside.set()
        assert ended.wait(10)

    def first(layer: nn.Linear) -> None:
        threads.append(threading.Thread(target=lambda: graphs.append(trace(Interrupted(second), ["item"]))))
        threads[0].start()
        assert not inside.wait(0.2)

    graphs.append(trace(Interrupted(first), ["item"]))
    ended.set()
    threads[0].join()

    assert (nn.Module.__call__, nn.Module.__getattr__) == before
    assert [[node.op for node in graph.nodes] for graph in graphs] == [["placeholder", "call_module", "output"]] * 2
