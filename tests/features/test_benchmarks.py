"""The benchmark of the look-alike search, in its quick form."""

from tests.quick import run_quick


def test_lookalike(tmp_path):
    run_quick("lookalike", tmp_path)
