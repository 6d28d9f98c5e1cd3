import logging

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.reasoning.journal import Reply
from taiji.reasoning.pair_judge import Cosine, EndpointJudge, SharedWords, judged_pairs, read_yes_or_no

TEXTS = ["ground coffee", "coffee filters", "printer ink", ""]
PAIRS = np.asarray([0, 0, 2]), np.asarray([1, 2, 3])


def test_a_rule_keeps_pairs_with_words_in_common():
    first, second = judged_pairs(*PAIRS, TEXTS, SharedWords())
    assert (first.tolist(), second.tolist()) == ([0], [1])


class Letters:
    name, version, dimension = "letters", "1", 2

    def encode(self, texts):
        return np.asarray([[float("coffee" in text), float("ink" in text)] for text in texts], np.float32)


def test_an_embedder_keeps_pairs_whose_texts_are_near():
    assert Cosine(Letters(), 0.5)([("coffee", "coffee filters"), ("coffee", "ink"), ("", "ink")]) == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes.", True),
        ("no, they are printers", False),
        ("**No** – though yes for some", False),
        ("I think yes", True),
        ("yes or no?", True),
        ("It could be yes, or no", None),
        ("Nobody knows", None),
        ("", None),
    ],
    ids=str,
)
def test_yes_and_no_are_read(answer, said):
    assert read_yes_or_no(answer) is said


class Teacher:
    def __init__(self):
        self.asked = []

    def ask(self, prompts, k, seed):
        self.asked += prompts
        texts = [row[0]["content"] for row in prompts]
        answers = [
            "yes" if "filters" in text else "no" if "ink" in text and "coffee" in text else "hm" for text in texts
        ]
        return [[Reply("k", "", answer, "", 1, 1, 1)] for answer in answers]


def test_a_model_is_asked_for_each_pair_and_unclear_answers_are_told(caplog):
    teacher = Teacher()
    with caplog.at_level(logging.WARNING):
        first, second = judged_pairs(*PAIRS, TEXTS, EndpointJudge(teacher))
    assert (first.tolist(), second.tolist()) == ([0], [1])
    assert len(teacher.asked) == 3 and "1. ground coffee\n2. coffee filters" in teacher.asked[0][0]["content"]
    assert "1 of 3" in caplog.text


def test_a_judge_that_does_not_answer_each_pair_is_said():
    with pytest.raises(InputError):
        judged_pairs(*PAIRS, TEXTS, lambda pairs: [True])
    none = np.zeros(0, int)
    assert [len(side) for side in judged_pairs(none, none, TEXTS, lambda pairs: 1 / 0)] == [0, 0]
