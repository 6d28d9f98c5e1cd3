import importlib
import subprocess
import sys
import warnings

import pytest

from taiji.core.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_old_path_names_a_module_that_is_there(old):
    assert importlib.util.find_spec(f"taiji.{MOVED[old]}") is not None


def test_old_paths_warn_and_give_the_same_objects():
    code = (
        "import warnings; warnings.simplefilter('error'); import taiji.models.ranking.external as new\n"
        "warnings.simplefilter('ignore')\n"
        "from taiji.ranking.external import open_ranker; from taiji.errors import TaijiError\n"
        "from taiji.evaluation.metrics import AUC; from taiji import ranking\n"
        "import taiji.core.errors, taiji.metrics.ranking_metrics as metrics\n"
        "assert open_ranker is new.open_ranker and TaijiError is taiji.core.errors.TaijiError and AUC is metrics.AUC\n"
        "assert ranking.train_ranker.__name__ == 'train_ranker'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_warning_says_where_the_module_went():
    sys.modules.pop("taiji.errors", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module("taiji.errors")
    assert "taiji.core.errors" in str(caught[0].message) and caught[0].category is DeprecationWarning


def test_unknown_modules_are_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("taiji.never_was")
