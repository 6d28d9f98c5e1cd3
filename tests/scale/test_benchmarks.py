"""The room's benchmarks in their quick form, so that none rots."""

import pytest
from tests.quick import run_quick


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scale_out", "plan"])
def test_quick_run_holds_its_checks(name, tmp_path):
    run_quick(name, tmp_path)
