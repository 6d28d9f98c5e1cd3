"""Pack the Python packages that a GPU machine without a network lacks into one archive.

    python -m tools.gpu.pack --out .gpu/packages.tar.xz      # here, where pip works
    tar xf packages.tar.xz -C /tmp/site                      # there
    PYTHONPATH=src:/tmp/site python3 -m tools.gpu.acceptance

The machine is expected to have CUDA builds of torch and what `PROVIDED` names. Versions are those of `constraints.txt`,
wheels are those of Python 3.12 on x86-64 Linux. Together with the repository the archive stays under 64 MiB, which is
why it is compressed with xz: as wheels, polars and faiss alone take 73 MB.
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
"""Bytes that the repository and the archive may take together."""
EXTRAS = ("llm",)
"""Extras of taiji that the acceptance needs."""
PACKED = (
    "annotated-types", "datasets", "dill", "faiss-cpu", "gguf", "hypothesis", "multiprocess", "polars", "polars-runtime-32",
    "pydantic", "pydantic-core", "trl", "typing-inspection",
)  # fmt: skip
"""Packages that go along."""
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
"""Packages that the machine has: the image of PyTorch, transformers and accelerate it was first run on."""
LEFT_OUT = frozenset({"wordllama"})
"""Needed by features that the acceptance does not use: wordllama is a model of 19 MB."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def missing(packed: frozenset[str] = frozenset(PACKED)) -> dict[str, str]:
    """Return the requirements that neither the machine nor the archive has, with who asks for each; empty when
    complete.

    Follows the metadata of the packages installed here, from taiji's own with `EXTRAS`.
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
    """Return the size of what git does not ignore here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return sum(path.stat().st_size for path in paths if path.is_file())


def stage(folder: Path) -> None:
    """Install the packed packages, and taiji's metadata (its entry points, without its source), into a folder."""
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


def main(out: Annotated[Path, typer.Option(help="The archive to write.")] = Path(".gpu/packages.tar.xz")) -> None:
    """Write the archive and say how large it is; fails where a requirement is missing or the limit is passed."""
    if lacking := missing():
        raise SystemExit(f"The pack is not complete: {lacking}. Add them to PACKED or PROVIDED.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        with tarfile.open(out, "w:xz") as archive:
            archive.add(folder, arcname=".")
    size, repository = out.stat().st_size, repository_bytes()
    print(f"{out}: {size / 2**20:.1f} MiB, the repository {repository / 2**20:.1f} MiB, limit {LIMIT / 2**20:.0f} MiB")
    if size + repository > LIMIT:
        raise SystemExit("Too large to go along.")


if __name__ == "__main__":
    typer.run(main)
