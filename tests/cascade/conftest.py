import pytest

from taiji.testing import checkerboard


@pytest.fixture(scope="session")
def board():
    return checkerboard()
