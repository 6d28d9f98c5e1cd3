"""The wheel holds what it needs, runs the whole loop from outside the repository, and never calls out unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.tiny import write_config, write_model, write_shop
from tools import licences

ROOT = Path(__file__).parent.parent
GUARD = """\
import os, socket
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")
def tell(what):
    with open(os.environ["CALLED_OUT"], "a") as stream:
        stream.write(f"{what}\\n")
    raise OSError(f"the network is closed: {what}")
def guarded(real, place):
    def call(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL):
            tell(address)
        return real(self, address)
    return call
socket.socket.connect = guarded(socket.socket.connect, None)
socket.socket.connect_ex = guarded(socket.socket.connect_ex, None)
real = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if host and not str(host).startswith(LOCAL):
        tell(host)
    return real(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""
"""As `sitecustomize`, stops and writes down every way out of this machine."""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of the sources."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        shutil.copytree(
            path, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        ) if path.is_dir() else shutil.copy(path, copy / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_wheel_and_sdist_hold_every_source_and_data_file(built):
    package = ROOT / "src" / "taiji"
    wanted = {
        f"taiji/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        assert {f"src/{name}" for name in wanted} <= {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_runs_the_loop_outside_the_repository_without_calling_out(built, tmp_path):
    """`make try-dist` does the same with everything installed anew; here the dependencies are those of this
    environment."""
    prefix, guard, called = tmp_path / "installed", tmp_path / "guard", tmp_path / "called"
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(prefix)
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    config = write_config(tmp_path / "tiny.yaml", write_shop(tmp_path / "shop"), write_model(tmp_path / "model"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "TAIJI_TEST_DATA")
    }
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(guard), str(prefix)]),
        "CALLED_OUT": str(called),
        "OMP_NUM_THREADS": "1",
    }

    def python(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    where = python("-c", "import taiji; print(taiji.__file__)").stdout.strip()
    assert where == str(prefix / "taiji" / "__init__.py")
    assert (
        python("-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)").returncode and called.read_text()
    ), "the guard is not at its post"
    called.unlink()
    done = python("-m", "taiji.cli", "run", config, "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
    assert not called.exists(), called.read_text()


def test_the_page_of_licences_is_up_to_date():
    text = (ROOT / "docs" / "licences.md").read_text()
    assert licences.UNKNOWN not in text, "run make docs, and then make pages, so that every environment is looked at"
    assert text == licences.page(), "run: make pages"


def test_a_licence_is_read_for_the_pinned_version_only_and_kept_where_it_is_not_installed():
    here = version("numpy").partition("+")[0]
    assert licences.licence("numpy", here) and not licences.licence("numpy", "0")
    assert not licences.licence("nobody-has-this-package", "1")
    assert licences.kept("mkdocs") == "BSD-2-Clause"
    assert licences.kept("nobody-has-this-package") == licences.UNKNOWN
