"""Two services of one host and store have different workers; the number comes back with the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.serving.rig import RedisServer

from taiji.core.errors import ResourceError
from taiji.serving import slots
from taiji.serving.settings import ServingSettings
from taiji.serving.slots import Slot
from taiji.serving.stores import open_store


def test_numbers_are_of_a_store_and_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, other = Slot("a", tmp_path), Slot("a", tmp_path), Slot("b", tmp_path)
    assert [slot.suffix() for slot in (first, second, other)] == ["", ".1", ""]
    first.close()
    assert Slot("a", tmp_path).number == 0
    monkeypatch.setattr(slots, "MOST", 2)
    with pytest.raises(ResourceError, match="Too many"):
        [Slot("c", tmp_path) for _ in range(3)]


def test_a_process_that_is_killed_gives_its_number_back(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from taiji.serving.slots import Slot; held = Slot('a', Path({str(tmp_path)!r})); print(held.number, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "0\n"
    taken = Slot("a", tmp_path)
    assert taken.number == 1
    process.kill()
    process.communicate()
    assert Slot("a", tmp_path).number == 0


def test_a_store_has_one_name_however_it_is_spelled(redis_server: RedisServer, tmp_path: Path) -> None:
    """Two services that call it differently must not have workers of one name, which would take each other's users."""
    places = [redis_server.url, redis_server.url.replace("127.0.0.1", "localhost")]
    stores = [open_store(ServingSettings(store=place)) for place in places]
    held = [Slot(store.generation, tmp_path) for store in stores]
    assert [slot.suffix() for slot in held] == ["", ".1"]
    for store in stores:
        store.close()
