"""Each promise of what is saved and trained, broken once."""

import json
from pathlib import Path

import numpy as np
import pytest

from taiji.testing import check_component, check_deterministic, checkerboard


class Constant:
    """One number, kept in JSON."""

    def __init__(self, value):
        self.value = value

    @property
    def version(self):
        return str(self.value)

    def save(self, folder):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "config.json").write_text(json.dumps(self.value))

    @classmethod
    def load(cls, folder, dataset):
        return cls(json.loads((Path(folder) / "config.json").read_text()))


class Rounded(Constant):
    def save(self, folder):
        Constant(round(self.value)).save(folder)


class Stamped(Constant):
    written = 0

    def save(self, folder):
        super().save(folder)
        Stamped.written += 1
        (Path(folder) / "stamp.txt").write_text(str(Stamped.written))


class Pickled(Constant):
    def save(self, folder):
        super().save(folder)
        (Path(folder) / "weights.pkl").write_bytes(b"")


def answer(component):
    return np.array([component.value])


def test_components():
    board = checkerboard(4, 4, 1)
    check_component(Constant(1.5), board, answer)
    for broken, message in ((Rounded(1.6), "came back"), (Stamped(1.5), "byte for byte"), (Pickled(1.5), "pickle")):
        with pytest.raises(AssertionError, match=message):
            check_component(broken, board, answer)


def test_seeds():
    check_deterministic(Constant)
    with pytest.raises(AssertionError, match="a different seed"):
        check_deterministic(lambda seed: Constant(0))
    values = iter(range(9))
    with pytest.raises(AssertionError, match="the same seed"):
        check_deterministic(lambda seed: Constant(next(values)))
