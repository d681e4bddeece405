"""Kill a notebook's kernel after each of its code cells, and see that this does no harm.

    python tests/killed_kernels.py [--every N] [--resume] NOTEBOOK…

After each kill (SIGKILL) a new kernel runs the notebook again from the top to its end, or, with
``--resume``, its first cells, ``lesson.resume()`` and what follows the place where it was killed.
No cell may fail; afterwards nothing may run twice or besides what runs after an undisturbed run;
and at the end ``down`` must leave nothing. The state is kept apart from the learner's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import nbclient
import nbformat


class Run:
    """A kernel that runs cells of a notebook."""

    def __init__(self, path, environment):
        self.notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(path.parent)}}
        self.client = nbclient.NotebookClient(self.notebook, timeout=900, resources=resources)
        self.environment = environment
        self.code = [n for n, one in enumerate(self.notebook.cells) if one.cell_type == "code"]

    def cells(self, numbers):
        """Run some of the code cells, counted from 0; the first that fails raises."""
        for number in numbers:
            index = self.code[number]
            self.client.execute_cell(self.notebook.cells[index], index)

    def line(self, source):
        """Run a line that is not in the notebook, and return what it shows as text."""
        cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(cell)
        self.client.execute_cell(cell, len(self.notebook.cells) - 1)
        shown = (one.get("text") or one.get("data", {}).get("text/plain") for one in cell.outputs)
        return "".join(filter(None, shown))

    def kill(self):
        """Let the kernel die as if its machine's memory had run out."""
        os.kill(self.client.km.provisioner.pid, signal.SIGKILL)

    @property
    def begins(self):
        """The number of the cell that begins the lesson."""
        cells = [self.notebook.cells[index].source for index in self.code]
        return next(n for n, source in enumerate(cells) if "lesson.begin(" in source)


@contextmanager
def kernel(path, environment):
    """Start a kernel for a notebook and give its ``Run``."""
    run = Run(path, environment)
    with run.client.setup_kernel(env=environment):
        yield run


def killed(path, environment, after, resume=False):
    """Kill a kernel after so many code cells, and run the notebook in another to its end."""
    with kernel(path, environment) as run:
        run.cells(range(after))
        run.kill()
    with kernel(path, environment) as run:
        first, last = run.begins + 1, len(run.code)
        if resume and after > first:
            run.cells(range(first))
            run.line("lesson.resume()")
            run.cells(range(after, last))
        else:
            run.cells(range(last))


def helpers(environment, *words):
    """Run a command of the course."""
    command = [sys.executable, "-m", "helpers", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def running(environment):
    """The names of what runs and of the files that are there, each as often as it is."""
    told = json.loads(helpers(environment, "status", "--json").stdout)
    return sorted(run["name"] for run in told["runs"] if run["alive"])


def labelled(environment):
    """What the Engine holds for this state, images left out: they serve as a cache."""
    ask = "from helpers import containers as c; print(c.label())"
    label = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True
    ).stdout.strip()
    kinds = (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"])
    ask = [["docker", *kind, "--filter", f"label={label}"] for kind in kinds]
    return [len(subprocess.run(one, capture_output=True, text=True).stdout.split()) for one in ask]


def main():
    """Print a line for each kill; the exit status is 1 if one did harm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="kill only after every Nth cell")
    parser.add_argument("--from", dest="first", type=int, default=1, help="begin with this one")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("notebook", nargs="+", type=Path)
    options = parser.parse_args()
    harm = 0
    for path in options.notebook:
        with tempfile.TemporaryDirectory(prefix="lab-") as home:
            harm += not _harmless(path.resolve(), {**os.environ, "LAB_HOME": home}, options)
    return harm > 0


def _harmless(path, environment, options):
    try:
        well = _try_all(path, environment, options)
    finally:  # also when this is interrupted
        left = helpers(environment, "down")
        print(f"  down: {left.stdout}{left.stderr}", flush=True)
    return well and left.returncode == 0


def _try_all(path, environment, options):
    with kernel(path, environment) as run:
        count = len(run.code)
        run.cells(range(count))
    before = running(environment), labelled(environment)
    print(f"{path.name}: {count} code cells; undisturbed, there remain {before}", flush=True)
    well = True
    for after in range(options.first, count, options.every):
        begin, problem = time.monotonic(), ""
        try:
            killed(path, environment, after, options.resume)
        except nbclient.exceptions.CellExecutionError as failed:
            problem = f"a cell failed: {failed}"
        now = running(environment), labelled(environment)
        if not problem and now != before:
            problem = f"there remain {now}"
        well = well and not problem
        print(f"  {after:3} {time.monotonic() - begin:6.1f} s  {problem or 'well'}", flush=True)
    return well


if __name__ == "__main__":
    sys.exit(main())
