"""The room's benchmarks in their quick form, so that none rots."""

from __future__ import annotations

import pytest
from tests.quick import run_quick


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copywriting", "copy_alignment"])
def test_quick_run_holds_what_no_chance_decides(name, tmp_path):
    run_quick(name, tmp_path, must_hold=lambda check: "bound" in check or "Spearman" in check)
