"""The benchmarks of retrievers, in their quick form."""

import pytest
from tests.quick import run_quick


def test_sequential(tmp_path):
    run_quick("sequential", tmp_path)


def test_generative(tmp_path):
    run_quick("generative", tmp_path)


@pytest.mark.slow
def test_intent(tmp_path):
    run_quick("intent", tmp_path)


@pytest.mark.slow
def test_multi_behaviour(tmp_path):
    run_quick("multi_behaviour", tmp_path)


@pytest.mark.slow
def test_generative_worlds(tmp_path):
    run_quick("generative_worlds", tmp_path)


@pytest.mark.slow
def test_diffusion_worlds(tmp_path):
    run_quick("diffusion_worlds", tmp_path)
