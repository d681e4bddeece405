"""What a notebook needs around its lesson: begin and resume it, check exercises, draw figures."""

from helpers.lesson.checks import check
from helpers.lesson.figures import COLOURS, CYCLE, HATCHES, caption, dots, style
from helpers.lesson.notes import progress
from helpers.lesson.opening import begin, data, link
from helpers.lesson.quizzes import quiz
from helpers.lesson.resuming import resume

__all__ = [
    "COLOURS",
    "CYCLE",
    "HATCHES",
    "begin",
    "caption",
    "check",
    "data",
    "dots",
    "link",
    "progress",
    "quiz",
    "resume",
    "style",
]
