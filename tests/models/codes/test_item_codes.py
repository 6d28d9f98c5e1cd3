import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.residual_kmeans import ResidualKMeans
from taiji.testing import check_coder, checkerboard


def test_codes_of_a_catalogue_keep_the_contract():
    board = checkerboard()
    random = np.random.default_rng(0)
    coder = ResidualKMeans(ResidualKMeans.Settings(levels=2, size=3)).fit(random.normal(size=(board.n_items, 4)))
    codes = ItemCodes.of(coder, random.normal(size=(board.n_items, 4)))
    check_coder(codes, board)
    assert codes.version == coder.version and codes.quality()["collisions"] > 0


def test_a_code_that_no_item_has_decodes_to_none():
    codes = ItemCodes(np.asarray([[0, 1], [1, 0], [0, 1]]), (2, 2), "v")
    assert [owners.tolist() for owners in codes.decode(np.asarray([[0, 1], [1, 1], [1, 0]]))] == [[0, 2], [], [1]]
    assert codes.decode(np.zeros((0, 2), np.int64)) == []


def test_codes_outside_their_level_are_rejected():
    with pytest.raises(InputError):
        ItemCodes(np.asarray([[0, 2]]), (2, 2), "v")
    with pytest.raises(InputError):
        ItemCodes(np.asarray([[0]]), (2, 2), "v")


def test_codes_stand_on_the_items_of_their_catalogue():
    board = checkerboard(items=4)
    codes = ItemCodes(np.asarray([[0, 1], [1, 0], [0, 1], [1, 1]]), (2, 2), "v")
    coded = codes.on(board)
    assert coded.items.select("code_1", "code_2", "code_version").rows() == [
        (0, 1, "v"),
        (1, 0, "v"),
        (0, 1, "v"),
        (1, 1, "v"),
    ]
    assert coded.events.equals(board.events)
    with pytest.raises(InputError):
        codes.on(checkerboard(items=5))
