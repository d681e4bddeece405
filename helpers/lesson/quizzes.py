"""Questions on a lesson: ``data/quizzes``, shown by jupyterquiz."""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path

from helpers.lesson import pages
from helpers.lesson.places import here

QUIZZES = Path(__file__).parents[2] / "data/quizzes"
COLOURS = {  # white text on them has a contrast of 5 to 1 or more
    "--jq-multiple-choice-bg": "#0072B2",
    "--jq-many-choice-bg": "#8A3A00",
    "--jq-numeric-bg": "#005F45",
    "--jq-numeric-input-bg": "#004733",
    "--jq-numeric-input-label": "#FFFFFF",
    "--jq-correct-color": "#007313",
}
FETCH = "document.head.appendChild(script);"  # what would load MathJax from another machine
JAVASCRIPT = "application/javascript"
# What jupyterquiz lacks: answers can be chosen by keyboard, labels belong to their boxes, and what
# it says is read aloud.
KEYBOARD = """
(function ready() {
  const box = document.getElementById("%s");
  if (!box || !box.querySelector(".Quiz")) { setTimeout(ready, 100); return; }
  box.querySelector(".asked")?.remove();
  box.dataset.lmSuppressShortcuts = "true";
  box.querySelectorAll(".Feedback").forEach(said => { said.setAttribute("role", "status"); });
  box.querySelectorAll(".InpLabel").forEach(label => { label.htmlFor = label.nextSibling.id; });
  box.querySelectorAll(".MCButton").forEach(answer => {
    answer.querySelector("input")?.remove();
    answer.tabIndex = 0;
    answer.setAttribute("role", "button");
    answer.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.target.click();
    });
  });
})();
"""


def quiz() -> None:
    """Show the questions of this notebook, to be answered by a click or by the keyboard.

    Where no scripts run (a page that is only read, a notebook that is not trusted yet), the
    questions stand there as text, with their answers folded away.

    Raises:
        FileNotFoundError: there are no questions for this notebook.
    """
    from IPython.display import display
    from IPython.utils.capture import capture_output
    from jupyterquiz import display_quiz

    questions = read(QUIZZES / f"{pages.path(here.number).stem}.json")
    before = random.getstate()
    random.seed(here.number)  # the package makes up a name for its part of the page
    with capture_output() as shown:
        display_quiz(questions, shuffle_answers=False, colors=COLOURS)
    random.setstate(before)
    part, script = shown.outputs[0].data["text/html"], shown.outputs[1].data[JAVASCRIPT]
    opening, style = part.split("<style>")
    name = re.search('id="(.+?)"', opening).group(1)
    asked = f'<div class="asked">{as_text(questions, markup=True)}</div></div>'
    lines = [line.strip() for line in (script.replace(FETCH, "") + KEYBOARD % name).splitlines()]
    script = "\n".join(line for line in lines if line and not line.startswith("//"))
    style += f"<style>#{name} .MCButton code {{ background: none; color: inherit }}</style>"
    markup = f"{opening}{asked}<style>{style}<script>{script}</script>"
    display({"text/plain": as_text(questions), "text/html": markup}, raw=True)


def read(path: Path) -> list[dict]:
    """Read questions; `code` in backquotes becomes HTML's, and dollars do not begin formulas."""
    text = path.read_text()

    def code(match: re.Match) -> str:
        return f"<code>{html.escape(match.group(1), quote=False)}</code>"

    return json.loads(re.sub(r"`([^`\n]+)`", code, text).replace("$", "&#36;"))


def as_text(questions: list[dict], markup: bool = False) -> str:
    """Return questions, their answers and which of these are right, as plain text or HTML."""
    lines = []
    for number, one in enumerate(questions, 1):
        answers = {_answer(each): each for each in one["answers"]}
        right = [
            f"{a} – {of.get('feedback', '')}" for a, of in answers.items() if of.get("correct")
        ]
        offered = [] if one["type"] == "numeric" else answers
        if markup:
            offered = "".join(f"<li>{answer}</li>" for answer in offered)
            lines.append(f"<p>{number}. {one['question']}</p><ul>{offered}</ul>")
            lines.append(f"<details><summary>Answer</summary>{'<br>'.join(right)}</details>")
        else:
            lines += [f"{number}. {one['question']}", *(f"   - {answer}" for answer in offered)]
            lines += [f"   Answer: {answer}" for answer in right]
    text = "\n".join(lines)
    return text if markup else html.unescape(re.sub(r"</?[a-z]+>", "", text))


def _answer(one: dict) -> str:
    return str(one.get("answer", one.get("value", one.get("range", "otherwise"))))
