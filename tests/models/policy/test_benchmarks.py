"""The benchmark of policies in its quick form, so that it does not rot; two seeds decide nothing."""

import pytest
from tests.quick import run_quick


@pytest.mark.slow
def test_long_term(tmp_path):
    run_quick("long_term", tmp_path)
