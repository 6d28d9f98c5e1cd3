"""The benchmark of sequential retrieval, in its quick form."""

from tests.quick import run_quick


def test_sequential(tmp_path):
    run_quick("sequential", tmp_path)
