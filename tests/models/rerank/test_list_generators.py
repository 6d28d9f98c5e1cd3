"""The contract, the beam against all lists, and lists that do not depend on who else asks."""

from itertools import permutations

import numpy as np
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError, InputError
from taiji.models.rerank.diversity import MMR
from taiji.models.rerank.list_generators import BeamLists, HeadPermutations, MixedLists, SampledLists
from taiji.testing import check_generator

VECTORS = np.random.default_rng(0).normal(size=(30, 4))
ALL = {
    "beam": BeamLists(VECTORS),
    "dpp": SampledLists(VECTORS),
    "mmr": SampledLists(VECTORS, "mmr"),
    "head": HeadPermutations(3),
}
ALL["mixed"] = MixedLists(list(ALL.values()))


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize(("lists", "length"), [(1, 1), (4, 3), (9, 6)])
def test_contract(name, lists, length):
    check_generator(ALL[name], lists=lists, length=length)


def test_a_wide_beam_finds_the_most_probable_lists():
    random = np.random.default_rng(1)
    items, scores = random.permutation(30)[:5], random.random(5)
    found = BeamLists(VECTORS, 0.6, 3.0).propose(Requests([0], [0]), Slate(items[None], scores[None]), 60, 3)[0]
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)

    def chance(order):
        total, free = 0.0, list(range(5))
        for step, place in enumerate(order):
            near = [max((unit[items[i]] @ unit[items[j]] for j in order[:step]), default=0.0) for i in free]
            gain = 3.0 * (0.6 * scores[free] - 0.4 * np.array(near))
            total += gain[free.index(place)] - np.log(np.exp(gain).sum())
            free.remove(place)
        return total

    expected = sorted(permutations(range(5), 3), key=chance, reverse=True)
    assert [tuple(row) for row in found.tolist()] == expected


@pytest.mark.parametrize("name", list(ALL))
def test_a_request_has_the_same_lists_in_other_company(name):
    random = np.random.default_rng(2)
    items = np.stack([random.permutation(30)[:8] for _ in range(4)])
    scores, requests = random.random((4, 8)), Requests([3, 1, 4, 1], [5, 9, 2, 6])
    together = ALL[name].propose(requests, Slate(items, scores), 6, 4)
    alone = ALL[name].propose(requests.take(slice(2, 3)), Slate(items[2:3], scores[2:3]), 6, 4)
    np.testing.assert_array_equal(together[2:3], alone)


@pytest.mark.parametrize("name", ["dpp", "mmr"])
def test_a_service_draws_by_the_user_and_not_by_the_place_in_a_batch(name):
    class Live(Requests):
        @property
        def same_user(self):
            return np.array([7, 3])[self.user]

    slate = Slate(np.tile(np.arange(20), (2, 1)), np.tile(-np.arange(20.0), (2, 1)))
    found = ALL[name].propose(Live([0, 1], [5, 5]), slate, 4, 6)
    np.testing.assert_array_equal(found, ALL[name].propose(Requests([7, 3], [5, 5]), slate, 4, 6))


def test_first_lists_are_those_of_the_scores():
    random = np.random.default_rng(3)
    slate = Slate(random.permutation(30)[None, :8], random.random((1, 8)))
    head = ALL["head"].propose(Requests([0], [0]), slate, 6, 4)[0]
    assert head[0].tolist() == np.argsort(-slate.scores[0])[:4].tolist() and len(np.unique(head, axis=0)) == 6
    mmr = ALL["mmr"].propose(Requests([0], [0]), slate, 6, 4)[0]
    assert slate.items[0, mmr[0]].tolist() == MMR(VECTORS).rerank(Requests([0], [0]), slate, 4).items[0].tolist()
    assert len(np.unique(mmr, axis=0)) > 1


def test_wrong_settings():
    with pytest.raises(ConfigError, match="head"):
        HeadPermutations(9)
    with pytest.raises(ConfigError, match="parameter of the beam"):
        BeamLists(VECTORS, 1.5)
    with pytest.raises(ConfigError, match="generator"):
        MixedLists([])
    with pytest.raises(InputError, match="fewer candidates"):
        ALL["head"].propose(Requests([0], [0]), Slate(np.array([[1, -1]])), 2, 2)
