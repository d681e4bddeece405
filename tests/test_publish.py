"""`make notebooks`: what is executed again is saved, cleaned, and only if it ran."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import publish

DOT = (
    "from IPython.display import display\n"
    "import base64\n"
    "display({'image/png': base64.b64encode(b'dot').decode(), 'text/plain': 'a dot'}, raw=True)"
)


def publish_command(path):
    command = [sys.executable, "-m", "helpers.publish", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves cells as a notebook and tells its path."""

    def save(*sources, **metadata):
        cells = [new_code_cell(source) for source in sources]
        path = tmp_path / "one.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    return save


def test_outputs_are_saved_without_what_varies(saved):
    line = "print('1 %\\r2 %\\rdone\\r\\nkept\\r')"
    path = saved(line, "6 * 7", widgets={"state": {}}, author="me")
    assert publish_command(path).returncode == 0
    found = nbformat.read(path, as_version=4)
    assert found.cells[0].outputs[0].text == "done\nkept\n"
    assert found.cells[1].outputs[0].data["text/plain"] == "42"
    assert set(found.metadata) == {"kernelspec", "language_info"}
    assert [cell.metadata for cell in found.cells] == [{}, {}]
    assert [cell.execution_count for cell in found.cells] == [1, 2]


def test_a_notebook_that_fails_is_left_as_it_was(saved):
    path = saved("1 / 0")
    before = path.read_bytes()
    done = publish_command(path)
    assert done.returncode == 1
    assert "one.ipynb: not written" in done.stderr and "division by zero" in done.stderr
    assert path.read_bytes() == before


def test_tagged_figures_become_pictures(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "PICTURES", tmp_path / "pictures")
    path = saved(DOT, DOT, "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata.tags = ["picture"]
    nbformat.write(notebook, path)
    publish.save_pictures(publish.execute(path), "one")
    (picture,) = (tmp_path / "pictures").iterdir()
    assert (picture.name, picture.read_bytes()) == ("one.png", b"dot")
