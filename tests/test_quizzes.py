"""Every lesson ends with a quiz on what it has shown, and each of its answers is explained."""

import json

import pytest
from reading import PATHS, code_cells, read

from helpers import lesson

LESSONS = [path for path in PATHS if path.name[:2] not in ("00", "99")]
QUIZZES = lesson.data("quizzes")
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
# The first page has one too, to show what a quiz is.
each_quiz = pytest.mark.parametrize("path", PATHS[:1] + LESSONS, ids=lambda path: path.stem)


def questions(path):
    return json.loads((QUIZZES / f"{path.stem}.json").read_text())


def choices(path):
    """The questions of which one answer is right, with its place among the answers."""
    for question in questions(path):
        if question["type"] == "multiple_choice":
            right = [answer["correct"] for answer in question["answers"]]
            yield question, right.index(True)


def test_there_are_no_quizzes_without_a_notebook():
    assert {one.stem for one in QUIZZES.iterdir()} <= {path.stem for path in PATHS}


@each_lesson
def test_a_lesson_asks_four_to_six_questions(path):
    assert 4 <= len(questions(path)) <= 6


@each_quiz
def test_questions(path):
    found = questions(path)
    assert len({question["question"] for question in found}) == len(found)
    for question in found:
        asked, answers = question["question"], question["answers"]
        right = [answer for answer in answers if answer["correct"]]
        assert question["type"] in ("multiple_choice", "many_choice", "numeric"), asked
        if question["type"] == "numeric":
            values = [answer["value"] for answer in answers if "value" in answer]
            assert len(right) == 1 and all(isinstance(one, int | float) for one in values), asked
        else:
            given = [answer["answer"] for answer in answers]
            assert len(set(given)) == len(given) >= 3, f"{asked}: three answers or more, all unlike"
            assert {answer["correct"] for answer in answers} == {True, False}, asked
            assert (question["type"] == "many_choice") == (len(right) > 1), asked


@each_quiz
def test_each_answer_is_explained(path):
    for question in questions(path):
        for answer in question["answers"]:
            assert answer["feedback"].strip(), f"{question['question']}: {answer}"


@each_lesson
def test_the_form_of_an_answer_does_not_give_it_away(path):
    found = list(choices(path))
    assert len({place for _, place in found}) > 1, "the right answer is always in the same place"
    lengths = [[len(answer["answer"]) for answer in question["answers"]] for question, _ in found]
    longest = [size.index(max(size)) for size in lengths]
    assert longest != [place for _, place in found], "the right answer is always the longest"


@each_quiz
def test_the_quiz_is_shown_once(path):
    shown = [cell for cell in code_cells(read(path)) if "lesson.quiz()" in cell.source]
    assert len(shown) == 1


@each_lesson
def test_the_quiz_is_shown_before_the_summary(path):
    notebook = read(path)
    sources = [cell.source.strip() for cell in notebook.cells]
    assert "lesson.quiz()" in sources, "no cell shows the quiz"
    shown = sources.index("lesson.quiz()")
    assert notebook.cells[shown] in code_cells(notebook)
    assert sources[shown - 1].startswith("## Check yourself\n")
    assert sources[shown + 1].startswith("## Summary")
