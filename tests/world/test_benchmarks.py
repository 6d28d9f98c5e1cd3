"""The package's benchmark in its quick form, so that it does not rot."""

from __future__ import annotations

import pytest
from tests.quick import run_quick


@pytest.mark.slow
@pytest.mark.integration
def test_quick_run_holds_its_checks(tmp_path):
    # Speed is the full benchmark's business: here other tests run beside it.
    written = run_quick("world", tmp_path, must_hold=lambda check: "per second" not in check and "CPU" not in check)
    assert len(written["checks"]) == 19
