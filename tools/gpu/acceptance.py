"""Acceptance run of taiji on one NVIDIA GPU: at most ten minutes, without a network and without model weights.

    python -m tools.gpu.pack                                      # where pip works
    mkdir -p /tmp/site && tar xf packages.tar.xz -C /tmp/site     # on the GPU machine, in a copy of the repository
    PYTHONPATH=src:.:/tmp/site python3 -m tools.gpu.acceptance --json gpu.json

Parts:

- `attention`: FlexAttention along the prefix tree compared with the masked reference.
- `agreement`: a GRPO step with shared prompts compared with that of stock TRL.
- `popo`: steps with several rewards.
- `looks`: how often the host waits for the GPU.
- `rankers`, `retrievers`: speed on the GPU; for rankers also on the CPU, with equal logits.
- `tests`: folders of the test suite whose components compute on a device.
- `steps`: seconds, memory and utilisation of a GRPO step on shapes of 1.7B and 8B models, ours and stock TRL's.

Cases of `steps` for which there is no time are left out, and a row says so. `--quick` runs tiny shapes, also on a CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from benchmarks.harness import Result, machine, plain, show

from taiji.core.artifacts import write_json
from tools.gpu import attention, components, grpo, host_looks, popo
from tools.gpu.card import Card, Ceilings, facts

PARTS = ("attention", "agreement", "popo", "looks", "rankers", "retrievers", "tests", "steps")
WITHOUT = "text_match wordllama fairgrad upgrad mgda pcgrad leaves_torchs_generator any_text_gives scores_alike_offline_and_online intent_match item_knowledge_match peer place_from_its_text two_threads_may placement"
"""Parts of the names of tests that need the embedder or the peers, which the archive lacks, or several processes on one
GPU."""
FOLDERS = ("tests/nn", "tests/models", "tests/language", "tests/alignment", "tests/cascade", "tests/testing")


def tests(card: Card, result: Result) -> None:
    """Run the test folders of the components, which use a GPU if there is one, in parallel processes."""
    folders = ["tests/nn/test_lookup_devices.py"] if card.quick else list(FOLDERS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not integration and not slow", "-k", " and ".join(f"not {name}" for name in WITHOUT.split()), *folders]  # fmt: skip
    if not card.quick:
        command += ["-n", str(min(12, os.cpu_count() or 1)), "--dist", "loadfile"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=150, check=False)
        said, failed = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        said, failed = (late.stdout or b"").decode() + "\nstopped: out of time", 1
    print(said[-6000:])
    lines = said.strip().splitlines()
    result.rows.append({"part": "tests", "said": lines[-1] if lines else ""})
    result.rows += [{"part": "tests", "said": line} for line in lines if line.startswith(("FAILED", "ERROR"))]
    result.at_most("tests on the GPU: exit status of pytest", failed, 0)


def main() -> None:
    """Run the requested parts, write the results after each, and exit with 1 if a check does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes and few repeats")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--seconds", type=float, default=570, help="time after which no further case of the part steps is started"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write checks, rows and machine as JSON")
    asked = parser.parse_args()
    card, result, end = Card(asked.device, asked.quick), Result(), time.monotonic() + asked.seconds
    # The factors of float32 products must not be rounded to 10 bits, because the products are compared with a reference.
    torch.backends.cuda.matmul.allow_tf32 = False
    ceilings = Ceilings.of(card)
    result.rows.append({"part": "card", **facts(card), **asdict(ceilings)})
    result.so_far()

    def left() -> float:
        return end - time.monotonic()

    actions: dict[str, Callable[[], None]] = {
        "attention": lambda: attention.measure(card, result),
        "agreement": lambda: grpo.agree(card, result),
        "popo": lambda: popo.measure(card, result),
        "looks": lambda: host_looks.measure(card, result),
        "rankers": lambda: components.rankers(card, result),
        "retrievers": lambda: components.retrievers(card, result),
        "steps": lambda: grpo.steps(card, result, ceilings, left),
        "tests": lambda: tests(card, result),
    }
    for part in asked.parts:
        begun = time.monotonic()
        try:
            actions[part]()
        except Exception as error:  # a part that fails must not end the others
            traceback.print_exc()
            result.rows.append({"part": part, "failed": f"{type(error).__name__}: {str(error)[:300]}"})
            result.at_most(f"{part}: ended with an error", 1, 0)
        card.free()
        result.rows.append({"part": part, "seconds": time.monotonic() - begun})
        if asked.json:
            write_json(asked.json, plain({"checks": [asdict(c) for c in result.checks], "rows": result.rows, "machine": machine()}))  # fmt: skip
    for part in dict.fromkeys(str(row["part"]) for row in result.rows):
        show([row for row in result.rows if row["part"] == part])
    for check in result.checks:
        print(f"{'holds' if check.holds else 'FAILS'}  {check.name}: {check.value:.4g} (bar {check.bar:.4g})")
    sys.exit(0 if all(check.holds for check in result.checks) else 1)


if __name__ == "__main__":
    main()
