"""One holder at a time; closing gives the lock back."""

import pytest

from taiji.core.errors import ResourceError
from taiji.core.locks import exclusive


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "new" / ".lock"
    held = exclusive(path, "Somebody else works here.", where=tmp_path, fix="wait")
    with pytest.raises(ResourceError, match="Somebody else works here") as refused:
        exclusive(path, "Somebody else works here.", where=tmp_path, fix="wait")
    assert str(tmp_path) in str(refused.value) and "wait" in str(refused.value)
    held.close()
    exclusive(path, "Somebody else works here.", where=tmp_path, fix="wait").close()
