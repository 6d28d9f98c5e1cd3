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
    clicks = world.truth.expect(users[requests.user], slates, requests.time)["click"].sum(axis=1)
    np.testing.assert_allclose(truth.of_lists(requests)(lists)["true_clicks@3"], clicks)
    alone = truth.of_candidates(requests, lists[:, 0])
    click = world.truth.expect(users[requests.user], slates[:, 0], requests.time)["click"][:, 0]
    np.testing.assert_allclose(alone["true click"], click)
    with pytest.raises(InputError, match="does not belong to this world"):
        WorldTruth(small("short-video", users=10), log)


@pytest.mark.parametrize("scenario", ["mall", "weak-network"])
def test_the_truth_of_a_request_is_that_of_its_own_context(scenario):
    """On another surface, or in another network, the same list has another value."""
    world = small(scenario, users=400)
    log = Dataset.from_tables(world.log("random", days=2))
    observation = world.reset()
    lists = observation.candidates.items[:, :4]
    there = (lists >= 0).all(axis=1)
    real = world.truth.list_values(observation, lists[:, None])[there, 0]
    user, item = (
        dict(zip(frame[name].to_list(), frame[name[:4]].to_list()))
        for frame, name in ((log.users, "user_id"), (log.items, "item_id"))
    )
    asked = observation.requests
    known = (
        there
        & np.array([u in user for u in asked.user.tolist()])
        & np.array([all(i in item for i in row) for row in lists.tolist()])
    )
    assert known.sum() > 3
    requests = Requests(
        np.array([user[u] for u in asked.user[known].tolist()]), asked.time[known],
        {name: values[known] for name, values in asked.columns.items()},
    )  # fmt: skip
    said = WorldTruth(world, log).of_lists(requests)(
        np.array([[item[i] for i in row] for row in lists[known].tolist()])
    )
    np.testing.assert_allclose(said["true_reward@4"], real[known[there]])
