"""What a Redis with each way of syncing keeps of the events that it has acknowledged, and what the service says of
it."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import redis
from tests.serving.rig import RedisServer

from taiji.serving.settings import ServingSettings
from taiji.serving.stores import open_store

pytestmark = pytest.mark.skipif(not RedisServer.installed(), reason="redis-server is not installed")
SLOW_DISK = """
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int file) { usleep(1500000); return syscall(SYS_fdatasync, file); }
int fsync(int file) { usleep(1500000); return syscall(SYS_fsync, file); }
"""


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_the_risk_of_a_redis_that_syncs_once_a_second_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fsync: str
) -> None:
    monkeypatch.setattr(logging.getLogger("taiji.serving"), "propagate", True)
    server = RedisServer(tmp_path / "redis", fsync=fsync)
    server.start()
    try:
        with caplog.at_level(logging.INFO, logger="taiji.serving"):
            open_store(ServingSettings(store=server.url)).close()
    finally:
        server.stop()
    assert ("redis syncs once a second" in caplog.messages) == (fsync == "everysec")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, with which the disk is slowed down")
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_a_redis_that_is_killed_while_its_disk_is_slow_keeps_everything_only_if_it_always_syncs(
    tmp_path: Path, fsync: str
) -> None:
    (tmp_path / "slow.c").write_text(SLOW_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "slow.so", tmp_path / "slow.c"], check=True)
    server = RedisServer(tmp_path / "redis", fsync=fsync, beneath=["env", f"LD_PRELOAD={tmp_path / 'slow.so'}"])
    lost = 0
    for seconds in (2.7, 3.3):  # in the middle of a sync, if there is one every second
        server.start()
        client, written, start = redis.Redis.from_url(server.url), 0, time.monotonic()
        client.delete("acknowledged")
        while time.monotonic() < start + seconds:
            client.rpush("acknowledged", written)
            written += 1
            time.sleep(0.002)
        server.kill()
        server.start()
        lost += written - redis.Redis.from_url(server.url).llen("acknowledged")
        server.kill()
    assert (lost > 0) == (fsync == "everysec")
