"""Real processes for tests and benchmarks: a Redis server on a free port, stopped and killed at will."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from taiji.serving.redis_store import RedisStore
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.store import Store


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plant(store: Store, packed: bytes, user: str = "u1", time: str = "5") -> None:
    """Put bytes into the queue as another version of the service might."""
    if isinstance(store, SQLiteStore):
        with store._change() as db:
            db.execute("INSERT INTO queue (user, event, at) VALUES (?, ?, ?)", (user, packed, 1_700_000_000_000_000))
    else:
        assert isinstance(store, RedisStore)
        store._redis.xadd(store._key("queue"), {"u": user, "t": time, "e": packed})


class SmallDisk:
    """A file system of a few megabytes that can be filled and emptied. Needs the right to mount."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._ballast = folder, folder / "ballast"
        folder.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True, capture_output=True
        )

    @staticmethod
    def allowed() -> bool:
        """Whether this process may mount."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return False
        with tempfile.TemporaryDirectory() as folder:
            made = (
                subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True
                ).returncode
                == 0
            )
            if made:
                subprocess.run(["umount", folder], check=True)
            return made

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


STEPPED_CLOCK = """
import time
real = time.time_ns
def stepped():
    with open({path!r}) as file:
        return real() + int(file.read() or 0) * 10**9
time.time_ns, time.time = stepped, lambda: stepped() / 1e9
"""
"""A ``sitecustomize`` module: the machine's clock plus the seconds that a file says."""


class RedisServer:
    """``redis-server`` with an append-only file in ``folder``; ``beneath`` starts it elsewhere than here, at the
    address ``host``."""

    def __init__(
        self, folder: Path, fsync: str = "everysec", host: str = "127.0.0.1", beneath: Sequence[str] = ()
    ) -> None:
        self.folder, self.port, self._fsync, self._host, self._beneath = folder, free_port(), fsync, host, beneath
        self.url = f"redis://{host}:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def installed() -> bool:
        """Whether there is a redis-server to start."""
        return shutil.which("redis-server") is not None

    def start(self, timeout: float = 20.0) -> None:
        """Start and wait until it has loaded its file."""
        options: dict[str, object] = {
            "port": self.port,
            "bind": self._host,
            "protected-mode": "no",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "daemonize": "no",
            "loglevel": "warning",
            "auto-aof-rewrite-percentage": 0,
        }
        command = [*self._beneath, "redis-server"] + [
            piece for name, value in options.items() for piece in (f"--{name}", str(value))
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self._host, self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(64).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            if self._process.poll() is not None:
                raise RuntimeError(f"redis-server ended with {self._process.returncode}")
            time.sleep(0.02)
        raise RuntimeError("redis-server does not answer")

    def runs(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


class Service:
    """``taiji.serving.serve`` in a process of its own, with the doubles as its backend; its children can be killed.

    ``beneath`` is a command that ends by becoming the one that follows it, such as ``ip netns exec NAME``.
    """

    def __init__(
        self,
        run: Path,
        settings: ServingSettings,
        module: str = "tests.serving.child",
        environment: dict[str, str] | None = None,
        beneath: Sequence[str] = (),
    ) -> None:
        self.run, self.settings, self._module, self._environment = run, settings, module, environment or {}
        self._beneath = beneath
        self.log = run / "service.log"
        self.url = self.health = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, timeout: float = 60.0) -> None:
        """Start and wait until the service is ready."""
        environment = {
            **os.environ,
            "TAIJI_RIG_SETTINGS": self.settings.model_dump_json(),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),  # of the doubles
            **self._environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._beneath, sys.executable, "-m", self._module, str(self.run)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(self.log.read_text()[-2000:])
        self.url = line.split(" on ")[1].split()[0]
        if " health on port " in line:
            self.health = f"{self.url.rpartition(':')[0]}:{line.rpartition(' ')[2].strip().rstrip(')')}/healthz"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(self.log.read_text()[-2000:])

    def children(self, kind: str) -> list[int]:
        """Process ids of the running ``api`` or ``worker`` children."""
        found = []
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.Error):
                if kind in child.cmdline():
                    found.append(child.pid)
        return found

    def kill(self, kind: str, timeout: float = 20.0) -> None:
        """SIGKILL the children of a kind, once there are any."""
        deadline = time.monotonic() + timeout
        while not (found := self.children(kind)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)
