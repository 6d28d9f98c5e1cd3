"""Truth in a log's own numbers."""

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.experiments.world_lists import WorldTruth


def test_lists_and_candidates_are_those_of_the_world():
    world = small("short-video", users=40)
    log = Dataset.from_tables(world.log("random", days=2))
    world.reset()
    assert log.n_items < 400, "dense numbers are not the world's"
    truth, requests = WorldTruth(world, log), Requests([3, 7], np.asarray(log.events["time"][[10, 900]]))
    lists = np.array([[log.n_items - 1, 4, 9], [0, 5, -1]])
    users, items = log.users["user_id"].to_numpy(), log.items["item_id"].to_numpy()
    slates = np.where(lists < 0, -1, items[lists])
    expected = world.truth.value(users[requests.user], slates, requests.time)
    np.testing.assert_allclose(truth.of_lists(requests)(lists)["true_reward@3"], expected)
    alone = truth.of_candidates(requests.user, lists[:, 0], requests.time)
    click = world.truth.expect(users[requests.user], slates[:, 0], requests.time)["click"][:, 0]
    np.testing.assert_allclose(alone["true click"], click)
    with pytest.raises(InputError, match="does not belong to this world"):
        WorldTruth(small("short-video", users=10), log)
