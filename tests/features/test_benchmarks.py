"""The benchmarks of the look-alike search and of the student, in their quick forms."""

from tests.quick import run_quick


def test_lookalike(tmp_path):
    run_quick("lookalike", tmp_path)


def test_intent_student(tmp_path):
    run_quick("intent_student", tmp_path)
