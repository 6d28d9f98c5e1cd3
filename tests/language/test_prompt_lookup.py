"""Guesses from a text's own repetitions."""

from __future__ import annotations

from taiji.language.prompt_lookup import Repetitions, Runs


def test_what_followed_the_latest_occurrence_of_the_longest_run():
    text = Repetitions([1, 2, 3, 4, 9, 2, 3, 5, 7, 1, 2, 3])
    assert text.guess(3) == [4, 9, 2], "three tokens recur, though two of them recur later"
    text.append(5)
    assert text.guess(2) == [7, 1]
    assert text.guess(9) == [7, 1, 2, 3, 5], "up to the end of the text"
    assert text.guess(0) == []


def test_nothing_is_guessed_where_nothing_recurs():
    assert Repetitions([]).guess(4) == Repetitions([1]).guess(4) == []
    assert Repetitions([1, 2, 3, 4, 1]).guess(4) == [], "a single token is too little"
    assert Repetitions([1, 2, 1, 2]).guess(4) == [1, 2]
    assert Repetitions([5, 5, 5]).guess(4) == [5], "the run at the end is not its own precedent"


def test_what_others_wrote_is_looked_up_where_the_text_has_no_such_run():
    others: Runs = {}
    one, two = Repetitions([1, 2, 3], others), Repetitions([1, 2, 9], others)
    for token in (4, 5, 6):
        one.append(token)
    assert two.guess(4) == [], "prompts are nobody else's"
    for token in (3, 4):
        two.append(token)
    assert two.guess(4) == [5, 6]
    assert one.guess(4) == []
    for token in (8, 3, 4):
        two.append(token)
    assert two.guess(1) == [8], "its own comes first"
