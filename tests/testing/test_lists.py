"""Each promise of fusers, list generators, evaluators, rerankers and policies, broken once."""

import numpy as np
import pytest

from taiji.core.component import NO_ITEM
from taiji.core.errors import InputError
from taiji.testing import check_fuser, check_generator, check_list_evaluator, check_policy, check_reranker

TASKS = ("click", "stay")


class Linear:
    def fuse(self, predictions, requests):
        return 2 * predictions["click"] - predictions["stay"]


class Curved(Linear):
    def fuse(self, predictions, requests):
        return np.sin(9 * predictions["click"])


class Placed(Linear):
    def fuse(self, predictions, requests):
        return super().fuse(predictions, requests) + np.arange(9)


def test_fusers():
    check_fuser(Linear(), TASKS, monotone={"click": 1, "stay": -1})
    with pytest.raises(AssertionError, match="stay: the score moves"):
        check_fuser(Linear(), TASKS, monotone={"stay": 1})
    with pytest.raises(AssertionError, match="click: the score moves"):
        check_fuser(Curved(), TASKS, monotone={"click": 1})
    with pytest.raises(AssertionError, match="permuted"):
        check_fuser(Placed(), TASKS)


class Shifts:
    """Windows over the candidates by score."""

    def propose(self, requests, slate, lists, length):
        order = np.argsort(np.where(slate.items == NO_ITEM, np.inf, -slate.scores), axis=1, kind="stable")
        return np.stack([order[:, k : k + length] for k in range(lists)], axis=1)


class Repeats(Shifts):
    def propose(self, requests, slate, lists, length):
        return np.zeros((len(requests), lists, length), int)


def test_generators():
    check_generator(Shifts(), lists=3)
    with pytest.raises(AssertionError, match="a candidate twice"):
        check_generator(Repeats())
    with pytest.raises(AssertionError, match="empty position"):
        check_generator(Shifts(), lists=6)  # the shorter slate has six candidates


class Sums:
    def score(self, requests, slate, lists):
        return np.take_along_axis(slate.scores[:, None], lists, axis=2).sum(axis=2)


class Relative(Sums):
    def score(self, requests, slate, lists):
        total = super().score(requests, slate, lists)
        return total - total.mean(axis=1, keepdims=True)


class Numbered(Sums):
    def score(self, requests, slate, lists):
        return super().score(requests, slate, lists) + np.arange(lists.shape[1])


def test_list_evaluators():
    check_list_evaluator(Sums(), across_lists=False)
    check_list_evaluator(Relative())
    with pytest.raises(AssertionError, match="one by one"):
        check_list_evaluator(Relative(), across_lists=False)
    with pytest.raises(AssertionError, match="permuted lists"):
        check_list_evaluator(Numbered())


class Best:
    def rerank(self, requests, slate, length):
        order = np.argsort(np.where(slate.items == NO_ITEM, np.inf, -slate.scores), axis=1, kind="stable")
        return slate.take(order[:, :length])


class Short(Best):
    def rerank(self, requests, slate, length):
        return super().rerank(requests, slate, length - 1)


class Stubborn(Best):
    def rerank(self, requests, slate, length):
        return slate.take(np.zeros((len(requests), length), int))


def test_rerankers():
    check_reranker(Best())
    check_reranker(Best(), length=8)
    for broken, message in ((Short(), "of 8 candidates"), (Stubborn(), "an item twice")):
        with pytest.raises(AssertionError, match=message):
            check_reranker(broken)


class Steady:
    def act(self, observation):
        if observation.shape[-1] != 3:
            raise InputError("Another world.")
        return observation.sum(axis=-1)


def test_policies():
    check_policy(Steady(), np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(AssertionError, match="impossible"):
        check_policy(Steady(), np.ones((2, 3)), np.zeros((2, 3)))
