"""Speed of the inspector in a browser, with 2,500 and with 100,000 users.

Two synthetic runs, one with 2,500 users and one with 100,000 users (2 million events), are served by ``taiji view`` and
operated in headless Chromium. Pages and interactions are measured on both runs in turn. For three interactions, a check
requires that the large run's time is at most three times the small run's. Absolute times are not checked, because they
depend on the machine.

Each row has an action (``what``) and a run (``users``). ``median ms`` and ``worst ms`` are elapsed times of seven
repeats: for a page, up to its first paint; for an interaction, from the reader's action to the frame after the page has
changed, including the delay in which a search waits for further typing. ``target ms`` is 1,000 for a page and 300 for
an interaction; it is only shown. ``server CPU ms`` and ``browser CPU ms`` are mean CPU times per action; other work on
the machine does not increase them. The rows ``start`` are the first page of a service that has just started, opened
once; they also have the time until the service listens (``listening ms``), the further time until everything is loaded
(``all loaded ms``), and the memory.

    python -m benchmarks.inspector [--quick] [--json benchmarks/results/inspector.json]

``TAIJI_BENCHMARK_RUN`` names the folder of a real run, whose first page is added. Chromium is needed (``make tools``).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from tests.inspector.browser import Tab, browser, executable
from tests.inspector.samples import write_run

from benchmarks.harness import Result, run

LARGE, SMALL = 100_000, 2_500
"""Numbers of users of the two runs."""
PAINT_MS, INTERACTION_MS = 1000.0, 300.0
"""Target times of a page and of an interaction, in milliseconds."""
SWAPPED = """new Promise(done => {
  const start = performance.now(), watch = new MutationObserver(() => {
    if (document.querySelector(%(part)s)?.classList.contains("busy") || document.querySelector(%(part)s) === before) return;
    watch.disconnect(); requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }), before = document.querySelector(%(part)s);
  watch.observe(document.querySelector("main"), { childList: true, subtree: true });
  %(act)s
})"""
TYPED = (
    "const q = document.querySelector('#q'); q.value = {!r}; q.dispatchEvent(new Event('input', {{ bubbles: true }}));"
)
CHOSEN = (
    "const s = document.querySelector('#{}'); s.value = {!r}; s.dispatchEvent(new Event('input', {{ bubbles: true }}));"
)
CLICKED = "document.querySelector({!r}).click();"


class Served:
    """``taiji view`` of a run, in its own process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taiji.cli", "view", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        stack.callback(self._stop)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[0]
        self.seconds_to_listen = time.perf_counter() - start

    def _stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)

    def cpu(self) -> float:
        """Return the milliseconds of CPU time that the server has used so far."""
        return 1000 * sum(psutil.Process(self.process.pid).cpu_times()[:2])


def browser_cpu() -> float:
    """Return the milliseconds of CPU time that the browser's processes have used so far."""
    spent = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            if "chrom" in child.name():
                spent += 1000 * sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
    return spent


def interactions(users: int) -> dict[str, tuple[str, str, str]]:
    """Return the page, the CSS selector of the part that changes, and the script of the action, by interaction."""
    return {
        "search an id": ("users", "#results", TYPED.format(f"user-{users - 7}")),
        "search words": ("users", "#results", TYPED.format("town 42")),
        "show only some": ("users", "#results", CHOSEN.format("only", "answers")),
        "other order": ("users", "#results", CHOSEN.format("order", "history")),
        "next page": ("users?order=id", "#results", CLICKED.format("#page-after")),
        "page in the middle": (f"users?order=id&page={users // 100}", "#results", CLICKED.format("#page-after")),
        "another moment": (
            f"users/user-{users - users % 5 - 5}",
            "#moment",
            CLICKED.format("#moments li:first-child a:not([aria-current]), #moments li:last-child a"),
        ),
        "all exposures": (f"users/user-{users // 2}", "#timeline", CLICKED.format("#all-events")),
        "another step": ("alignment", "#step", CLICKED.format("#after")),
    }


def interact(tab: Tab, served: Served, page: str, part: str, act: str) -> tuple[float, float, float]:
    """Open a page and interact with it. Return the elapsed time, the CPU time of the server and that of the browser,
    each in milliseconds."""
    tab.open(served.url + page)
    server, client = served.cpu(), browser_cpu()
    elapsed = float(tab.run(SWAPPED % {"part": json.dumps(part), "act": act}))
    return elapsed, served.cpu() - server, browser_cpu() - client


def opened(tab: Tab, url: str) -> float:
    """Open a page, and return the milliseconds to its first contentful paint."""
    return tab.open(url) * 1000


def measure(quick: bool) -> Result:
    """Measure both runs in turn, and the first page of the real run if it is named."""
    if executable() is None:
        sys.exit("There is no Chromium on this machine. Install it with: make tools")
    result, repeats = Result(), 3 if quick else 7
    sizes = {"small": 200, "large": 2_000} if quick else {"small": SMALL, "large": LARGE}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taiji-inspector-")))
        served: dict[str, Served] = {}
        for name, users in sizes.items():
            write_run(folder / name, users=users, per_user=20, items=5_000)
            served[name] = Served(folder / name, stack)
        tab = stack.enter_context(browser())
        tab.size(1280)
        for name, one in served.items():
            row = _started(tab, one) | {"users": sizes[name]}
            begin = time.perf_counter()
            tab.open(f"{one.url}users/user-1")  # waits until everything is loaded
            result.rows.append(
                row | {"all loaded ms": (time.perf_counter() - begin) * 1000, "memory MiB": one.memory()}
            )
        real = os.environ.get("TAIJI_BENCHMARK_RUN")
        if real:
            result.rows.append(_started(tab, Served(Path(real), stack)) | {"users": "a real run"})
        for page in ("", "users", "users/user-5", "users/user-15", "alignment"):
            found: dict[str, list[tuple[float, ...]]] = {name: [] for name in served}
            for _ in range(repeats):
                for name, one in served.items():
                    server, client = one.cpu(), browser_cpu()
                    elapsed = opened(tab, one.url + page)
                    found[name].append((elapsed, one.cpu() - server, browser_cpu() - client))
            _row(result, f"open /{page}", found, sizes, PAINT_MS)
        for what in interactions(1):
            found = {name: [] for name in served}
            for _ in range(repeats):
                for name, one in served.items():
                    found[name].append(interact(tab, one, *interactions(sizes[name])[what]))
            _row(result, what, found, sizes, INTERACTION_MS)
    for what in ("search words", "next page", "another moment"):
        row = {r["users"]: r["median ms"] for r in result.rows if r["what"] == what}
        result.at_most(
            f"{what}: {sizes['large']:,} users against {sizes['small']:,}",
            row[sizes["large"]] / row[sizes["small"]],
            3.0,
        )
    return result


def _started(tab: Tab, one: Served) -> dict[str, Any]:
    """Open the first page of a service that has just started, and return the row of its times."""
    start = {"what": "start", "listening ms": one.seconds_to_listen * 1000, "listening CPU ms": one.cpu()}
    server, client = one.cpu(), browser_cpu()
    first = opened(tab, one.url)
    return start | {
        "median ms": first,
        "target ms": PAINT_MS,
        "server CPU ms": one.cpu() - server,
        "browser CPU ms": browser_cpu() - client,
    }


def _row(
    result: Result, what: str, found: dict[str, list[tuple[float, ...]]], sizes: dict[str, int], target: float
) -> None:
    for name, rows in found.items():
        elapsed, server, client = (list(column) for column in zip(*rows))
        row: dict[str, Any] = {
            "what": what,
            "users": sizes[name],
            "median ms": statistics.median(elapsed),
            "worst ms": max(elapsed),
            "target ms": target,
        }
        row |= {"server CPU ms": statistics.mean(server), "browser CPU ms": statistics.mean(client)}
        result.rows.append(row)


if __name__ == "__main__":
    run(measure)
