"""Pack the Python packages that a GPU machine without a network lacks into one archive.

    python -m tools.gpu.pack --out .gpu/packages.tar.xz           # here, where pip works
    mkdir -p /tmp/site && tar xf packages.tar.xz -C /tmp/site     # on the GPU machine, in a copy of the repository
    PYTHONPATH=src:.:/tmp/site python3 -m tools.gpu.acceptance

The GPU machine must have CUDA builds of torch, and the packages of `PROVIDED`. Versions are those of `constraints.txt`;
wheels are those for Python 3.12 on x86-64 Linux. Archive and repository together must stay below 64 MiB. The archive is
therefore compressed with xz: as wheels, polars and faiss alone take 73 MB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LIMIT = 64 << 20
"""Largest allowed size of repository and archive together, in bytes."""
EXTRAS = ("llm",)
"""Extras of taiji that the acceptance run needs."""
PACKED = (
    "annotated-types", "datasets", "dill", "faiss-cpu", "gguf", "hypothesis", "multiprocess", "polars", "polars-runtime-32",
    "pydantic", "pydantic-core", "trl", "typing-inspection",
)  # fmt: skip
"""Packages in the archive."""
PROVIDED = frozenset(
    [
        "accelerate",
        "aiofiles",
        "aiohttp",
        "annotated-doc",
        "anyio",
        "attrs",
        "certifi",
        "charset-normalizer",
        "click",
        "filelock",
        "fsspec",
        "h11",
        "hf-xet",
        "httpcore",
        "httpx",
        "huggingface-hub",
        "idna",
        "jinja2",
        "joblib",
        "markdown-it-py",
        "markupsafe",
        "mdurl",
        "mpmath",
        "narwhals",
        "networkx",
        "numpy",
        "onnx",
        "onnxruntime",
        "packaging",
        "pandas",
        "peft",
        "pillow",
        "prometheus-client",
        "protobuf",
        "psutil",
        "pyarrow",
        "pygments",
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "python-dateutil",
        "pyyaml",
        "regex",
        "requests",
        "rich",
        "safetensors",
        "scikit-learn",
        "scipy",
        "setuptools",
        "shellingham",
        "six",
        "sortedcontainers",
        "sympy",
        "tensorboard",
        "threadpoolctl",
        "tokenizers",
        "torch",
        "tqdm",
        "transformers",
        "triton",
        "typer",
        "typing-extensions",
        "urllib3",
        "uvloop",
        "xxhash",
    ]
)
"""Packages that the GPU machine must have. They are those of the machine of the first run, whose image contained
PyTorch, transformers and accelerate."""
LEFT_OUT = frozenset({"wordllama"})
"""Packages needed only by features outside the acceptance run. wordllama contains a model of 19 MB."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def missing(packed: frozenset[str] = frozenset(PACKED)) -> dict[str, str]:
    """Return the requirements that neither the GPU machine nor the archive has, with the package that needs each. The
    result is empty if the pack is complete.

    Requirements are read from the metadata of the packages installed here, beginning with taiji and its `EXTRAS`.
    """
    lacking: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [("taiji", extra) for extra in ("", *EXTRAS)]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            wanted = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue  # an optional package that is not installed here has no metadata to follow
        for need in wanted:
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            needed = canonicalize_name(need.name)
            if needed in PROVIDED or needed in LEFT_OUT:
                continue
            if needed not in packed:
                lacking[needed] = name
                continue
            queue += [(needed, more) for more in ("", *need.extras)]
    return lacking


def repository_bytes() -> int:
    """Return the size of the files in the repository that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return sum(path.stat().st_size for path in paths if path.is_file())


def stage(folder: Path) -> None:
    """Install the packages of the archive into a folder, and the metadata of taiji (its entry points, without its
    source)."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-deps",
    ]
    target = ["--target", str(folder), "--python-version", "3.12", "--implementation", "cp"]
    platforms = [f"--platform={name}_x86_64" for name in PLATFORMS]
    subprocess.run(
        [*pip, *target, *platforms, "--only-binary=:all:", "-c", str(ROOT / "constraints.txt"), *PACKED], check=True
    )
    with tempfile.TemporaryDirectory() as own:
        subprocess.run([*pip, "--target", own, str(ROOT)], check=True)
        for made in Path(own).glob("taiji-*.dist-info"):
            shutil.copytree(made, folder / made.name)
    for path in sorted(folder.rglob("tests")) + sorted(folder.rglob("benchmarks")):
        shutil.rmtree(path, ignore_errors=True)


def main(out: Annotated[Path, typer.Option(help="Archive to write.")] = Path(".gpu/packages.tar.xz")) -> None:
    """Write the archive and print its size. Fail if a requirement is missing or the limit is exceeded."""
    if lacking := missing():
        raise SystemExit(
            f"The archive lacks packages (each with the one that needs it): {lacking}. Add them to PACKED or PROVIDED."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        with tarfile.open(out, "w:xz") as archive:
            archive.add(folder, arcname=".")
    size, repository = out.stat().st_size, repository_bytes()
    print(f"{out}: {size / 2**20:.1f} MiB, the repository {repository / 2**20:.1f} MiB, limit {LIMIT / 2**20:.0f} MiB")
    if size + repository > LIMIT:
        raise SystemExit("Archive and repository together are larger than the limit.")


if __name__ == "__main__":
    typer.run(main)
