"""The room's benchmarks in their quick form, so that none rots."""

import pytest
from tests.quick import run_quick


@pytest.mark.integration
@pytest.mark.parametrize(("name", "needs"), [("ranking", ("torch_rechub", "lightgbm")), ("ranking_stream", ())])
def test_quick_run_holds_its_checks(name, needs, tmp_path):
    for package in needs:
        pytest.importorskip(package)
    run_quick(name, tmp_path)
