"""Build the book with Sphinx (``make book``)."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from helpers.book import checks, stage


def slug(heading: str) -> str:
    """Return the anchor of a heading as JupyterLab names it, so that links work in both."""
    return heading.replace(" ", "-")


def build(out: Path) -> list[str]:
    """Build the book anew and return what is wrong with it, a sentence each.

    Args:
        out: the folder of the book; what it held before is replaced.
    """
    from sphinx.application import Sphinx
    from sphinx.util.console import nocolor

    nocolor()
    warnings = io.StringIO()
    with tempfile.TemporaryDirectory() as work:
        source, site = Path(work, "source"), Path(work, "site")
        source.mkdir()
        stage.write(source)
        app = Sphinx(
            source,
            Path(__file__).parent,
            site,
            Path(work, "trees"),
            "html",
            status=None,
            warning=warnings,
            parallel=os.cpu_count() or 1,
        )
        app.build()
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(site, out)
        shutil.copytree(source / "data", out / "data", dirs_exist_ok=True)
    said = warnings.getvalue().replace(f"{source}/", "")
    return [*said.splitlines(), *checks.problems(out)]
