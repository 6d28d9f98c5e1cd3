"""Checks for components of this and other packages, and a dataset with a provably correct answer.

Each check takes a component and raises :class:`AssertionError` with the expected and the actual value. Call them from
tests::

    from taiji.testing import check_scorer, checkerboard, exposures_of

    def test_my_ranker_keeps_the_contract():
        dataset = checkerboard()
        check_scorer(MyRanker().fit(dataset, exposures_of(dataset)), dataset)
"""

from taiji.testing.coding import check_vector_coder
from taiji.testing.components import check_component, check_deterministic
from taiji.testing.datasets import checkerboard, exposures_of, requests_of
from taiji.testing.field_checks import check_field, check_source
from taiji.testing.lists import check_fuser, check_generator, check_list_evaluator, check_policy, check_reranker
from taiji.testing.retrieval import check_coder, check_retriever
from taiji.testing.scoring import check_learns_checkerboard, check_scorer
from taiji.testing.worlds import check_world

__all__ = [
    "check_coder",
    "check_component",
    "check_deterministic",
    "check_field",
    "check_fuser",
    "check_generator",
    "check_learns_checkerboard",
    "check_list_evaluator",
    "check_policy",
    "check_reranker",
    "check_retriever",
    "check_scorer",
    "check_source",
    "check_vector_coder",
    "check_world",
    "checkerboard",
    "exposures_of",
    "requests_of",
]
