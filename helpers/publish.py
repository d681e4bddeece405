"""Execute notebooks again and save them as they are published (``make notebooks``).

What changes from run to run and tells the reader nothing is taken out. A notebook that ends in an
error that it does not announce (tag ``raises-exception``) is left as it was.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
import time
from pathlib import Path

import nbclient
import nbformat

FAILURES = (
    nbclient.exceptions.CellExecutionError,
    nbclient.exceptions.CellTimeoutError,
    nbclient.exceptions.DeadKernelError,
)
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, PICTURES = ROOT / "notebooks", ROOT / "data/pictures"


def execute(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """Run a notebook from its first cell to its last and return it as it is published.

    Args:
        path: the notebook.
        timeout: seconds that one cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed that was not meant to.
    """
    return normalise(client(path, timeout).execute())


def client(path: Path, timeout: int = 600, **more) -> nbclient.NotebookClient:
    """Return what executes a notebook; nothing is written.

    Args:
        path: the notebook.
        timeout: seconds that one cell may take.
        more: further settings of the client.
    """
    resources = {"metadata": {"path": str(path.parent)}}
    given = {"timeout": timeout, "coalesce_streams": True, "resources": resources, **more}
    return nbclient.NotebookClient(nbformat.read(path, as_version=4), **given)


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out of a notebook what differs between two runs and two machines, in place."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {k: cell.metadata[k] for k in ("tags",) if k in cell.metadata}
        )
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                # of a line that was written over (a progress bar) only the last state is kept
                output.text = re.sub(r"[^\n]*\r+(?=[^\r\n])", "", output.text).replace("\r", "")
            elif output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
            else:
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
    nbformat.validate(notebook)
    return notebook


def save_pictures(notebook: nbformat.NotebookNode, name: str) -> None:
    """Save the figures of cells tagged ``picture`` for the README, as ``data/pictures/NAME.png``.

    Args:
        notebook: an executed one.
        name: what the files are called; a second figure's name ends in ``-2``.
    """
    found = [
        output.data["image/png"]
        for cell in notebook.cells
        if "picture" in cell.metadata.get("tags", [])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    for number, picture in enumerate(found, 1):
        PICTURES.mkdir(exist_ok=True)
        path = PICTURES / f"{name}{f'-{number}' if number > 1 else ''}.png"
        path.write_bytes(base64.b64decode(picture))


def main() -> None:
    """Execute the notebooks named on the command line, or all of them, in order."""
    parser = argparse.ArgumentParser(prog="python -m helpers.publish", description=__doc__)
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all of notebooks/")
    chosen = parser.parse_args().notebook or sorted(NOTEBOOKS.glob("*.ipynb"))
    failed = False
    for path in chosen:
        begin = time.monotonic()
        try:
            notebook = execute(path)
        except FAILURES as problem:
            print(f"{path.name}: not written, a cell failed\n{problem}", file=sys.stderr)
            failed = True
        else:
            nbformat.write(notebook, path)
            save_pictures(notebook, path.stem)
            print(f"{path.name}: {time.monotonic() - begin:.0f} s", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
