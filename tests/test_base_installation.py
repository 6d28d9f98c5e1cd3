"""Everything but the language-model stack works when only the base dependencies can be imported."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.tiny import write_shop

from taiji.cli.doctor import BASE_PACKAGES, PURPOSE
from taiji.core.errors import ResourceError
from taiji.core.optional import EXTRAS, explain, install_line, needs, require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCK = f"""
import importlib.abc, importlib.util, sys
BLOCKED = {sorted({module for packages in EXTRAS.values() for module in packages.values()})!r}
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.partition(".")[0] in BLOCKED else real(name, *more)
"""
"""Makes a Python that has the base dependencies alone out of the one that has them all."""
IMPORTS = """
import importlib, pkgutil
import taiji
for package in ("core", "data", "metrics", "nn", "models", "world", "features", "experiments", "reporting", "inspector"):
    importlib.import_module(f"taiji.{package}")
    for module in pkgutil.walk_packages(importlib.import_module(f"taiji.{package}").__path__, f"taiji.{package}."):
        importlib.import_module(module.name)
for name in ("config", "cli", "pipeline.engine", "pipeline.stages", "alignment", "serving", "reasoning.settings"):
    importlib.import_module(f"taiji.{name}")
"""
STUDY = """
import sys
from pathlib import Path
from taiji.data import DataSettings, Split, load_dataset
from taiji.experiments.study import Arm, aggregate, built_in, run_cells
from taiji.metrics.ranker_evaluation import evaluate_rankers
from taiji.models.ranking import Ranker, train_ranker
from taiji.models.ranking.settings import RankerSettings

shop, out = Path(sys.argv[1]), Path(sys.argv[2])
dataset = load_dataset(DataSettings(source=str(shop)))
events = dataset.events
frame = events.with_row_index("event") if "event" not in events.columns else events
cut = frame["time"].sort()[len(frame) * 3 // 4]
train, test = frame.filter(frame["time"] < cut), frame.filter(frame["time"] >= cut)
settings = RankerSettings(dimension=4, history=5, neighbour=5, hidden=(8,), batch=512, epochs=2, min_steps=1)
ranker = train_ranker(dataset, train, settings, seed=1)
ranker.save(out / "ranker")
assert Ranker.load(out / "ranker", dataset).predict(test).equals(ranker.predict(test))
rows = evaluate_rankers(test, {"none": ranker.predict(test)}, resamples=20)
auc = next(row["value"] for row in rows if row["metric"] == "click auc")
assert 0.5 < auc < 1, auc
trainer, version = built_in(dataset, settings)
cells = run_cells(train, test, [Arm("none")], (0, 1), trainer, out / "cells", trainer_version=version)
assert {row["metric"] for row in aggregate(cells, out / "cells", test, resamples=20)} >= {"click auc", "ctcvr log_loss"}
"""


def plain(requirement: str) -> str:
    """Return a distribution's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def blocked(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a Python without the packages of any extra."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_package_of_an_extra_is_known_and_the_other_way_round():
    declared = {
        extra: {plain(text) for text in packages}
        for extra, packages in PROJECT["optional-dependencies"].items()
        if extra not in ("dev", "docs")
    }
    assert declared == {extra: {plain(name) for name in packages} for extra, packages in EXTRAS.items()}
    assert {plain(name) for name in BASE_PACKAGES} == {plain(text) for text in PROJECT["dependencies"]}
    assert set(PURPOSE) == set(EXTRAS)


def test_make_install_brings_all_extras_that_need_no_gpu():
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if '-e ".[' in line)
    assert set(line.split("[")[1].split("]")[0].split(",")) == {*EXTRAS, "dev"} - {"gpu"}


def test_all_packages_but_those_about_language_import():
    done = blocked(IMPORTS)
    assert done.returncode == 0, done.stderr


def test_a_ranker_is_trained_judged_and_studied(tmp_path):
    done = blocked(STUDY, write_shop(tmp_path / "shop"), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "extra, code",
    [
        pytest.param("llm", "from taiji.language.causal_lm import _read; _read('x', None)", id="model"),
        pytest.param(
            "llm", "from taiji.language.embed import load_embedder; load_embedder('wordllama')", id="embedder"
        ),
        pytest.param("llm", "import taiji.alignment; taiji.alignment.ParetoGRPOTrainer", id="trainer"),
        pytest.param("serve", "from taiji.serving import serve; serve('.')", id="service"),
        pytest.param(
            "serve",
            "from taiji.serving.settings import ServingSettings; from taiji.serving.stores import open_store;"
            "open_store(ServingSettings(store='redis://localhost:1/0'))",
            id="store",
        ),
        pytest.param("scale", "from taiji.scale.ray_mapper import connect; connect()", id="cluster"),
        pytest.param(
            "onnx",
            "import polars as pl; from types import SimpleNamespace; from taiji.models.ranking.onnx_ranker import OnnxRanker;"
            "ids = pl.DataFrame({'user_id': [1], 'item_id': [1]});"
            "OnnxRanker(SimpleNamespace(users=ids, items=ids), 'x.onnx')",
            id="onnx",
        ),
        pytest.param(
            "peers",
            "import numpy; from taiji.nn.library_rules import _Library; _Library('MGDAWeighting')(numpy.eye(2), 0)",
            id="rule",
        ),
        pytest.param("world", "from taiji.world import WorldEnv; WorldEnv()", id="environment"),
        pytest.param(
            "demo", "from taiji.data.sources.completejourney import package_folder; package_folder()", id="data"
        ),
    ],
)
def test_what_lacks_a_package_names_its_extra(extra, code):
    done = blocked(
        f"from taiji.core.errors import ResourceError\ntry: {code}\nexcept ResourceError as error: print(error.fix)"
    )
    assert done.stdout.startswith(install_line(extra)), done.stdout + done.stderr


def test_a_command_that_lacks_a_package_ends_in_one_message():
    done = blocked("from taiji.cli import main; sys.argv = ['taiji', 'doctor']; main()")
    assert done.returncode == 0, done.stdout + done.stderr
    code = "from taiji.cli import console\ndef command():\n    import trl\nconsole.guarded(command)"
    done = blocked(code)
    assert done.returncode == 2
    assert install_line("llm") in done.stderr and "Traceback" not in done.stderr


def test_failed_imports_of_other_packages_are_left_alone():
    assert explain(ImportError("no", name="some_other_package")) is None
    assert explain(ImportError("no", name="sklearn.metrics")).fix == install_line("peers")
    with pytest.raises(ImportError, match="ours"), needs("llm"):
        raise ImportError("ours", name="taiji.never_was")
    with pytest.raises(ResourceError, match="broken") as caught, needs("serve", where="serving.store"):
        raise ImportError("broken", name="hiredis.hiredis")
    assert (caught.value.where, caught.value.fix) == ("serving.store", install_line("serve"))
    require("llm", "sys", "json")
    with pytest.raises(ResourceError, match="never_was"):
        require("llm", "sys", "never_was")
