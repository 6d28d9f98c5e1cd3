from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("taiji.alignment", "taiji.data", "taiji.models.ranking", "taiji.serving", "taiji.world")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_found_and_known_to_type_checkers(name):
    package = importlib.import_module(name)
    assert all(getattr(package, public) is not None for public in package.__all__)
    tree = ast.parse(Path(package.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    assert {alias.name for node in checked.body for alias in node.names} == set(package.__all__)
    with pytest.raises(AttributeError, match=rf"'{name}' has no attribute 'nothing'"):
        _ = package.nothing


def test_an_old_name_warns_and_gives_the_new_one():
    from taiji import alignment

    with pytest.warns(DeprecationWarning, match=r"alignment\.build_reward_table"):
        assert alignment.build_environment is alignment.build_reward_table


def test_importing_the_packages_loads_nothing_heavy():
    code = f"import sys, {', '.join(PACKAGES)}; print([n for n in ('torch', 'polars', 'fastapi') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
