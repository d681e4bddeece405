"""The book and the slides are whole, fetch nothing, and suit a telephone and a screen reader."""

import html
import json
import re
import shutil
import subprocess

import pytest
from reading import PATHS, ROOT, code_cells, plain_text, read

PYTHON = ROOT / ".venv-book/bin/python"
BROWSER = next(filter(None, map(shutil.which, ["chromium", "google-chrome", "chrome"])), None)
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="run: make setup-book")
needs_browser = pytest.mark.skipif(not BROWSER, reason="no browser is installed")

# Loads each page in a frame as wide as a telephone, and leaves what it has found as its only text.
FRAMES = """<!DOCTYPE html><body><script>
const look = (page) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.width = 360; frame.height = 800; frame.src = page;
  frame.onload = async () => {
    const inside = frame.contentDocument.documentElement;
    const found = { wider: inside.scrollWidth - inside.clientWidth };
    if (AXE) {
      await new Promise((loaded) => {
        const script = document.createElement("script");
        script.src = AXE; script.onload = loaded; inside.append(script);
      });
      const result = await frame.contentWindow.axe.run(inside);
      found.passes = result.passes.length;
      found.faults = result.violations.filter((one) => one.impact !== "minor")
        .map((one) => one.id + ": " + one.nodes[0].html);
    }
    frame.remove(); done(found);
  };
  document.body.append(frame);
});
(async () => {
  const found = {};
  for (const page of PAGES) found[page] = await look(page);
  document.body.textContent = JSON.stringify(found);
})();
</script></body>"""


def make(what, *options):
    """Run the command behind `make book` and `make slides`."""
    command = [PYTHON, "-m", "helpers.book", what, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The book of the notebooks as they are."""
    out = tmp_path_factory.mktemp("book") / "book"
    made = make("site", "--out", out)
    assert made.returncode == 0, made.stderr
    return out


def looked_at(pages, folder, axe=""):
    """Load pages in a browser; return of each how much it is too wide, and what axe says of it."""
    values = {"AXE": str(axe), "PAGES": [page.as_uri() for page in pages]}
    text = re.sub("AXE|PAGES", lambda name: json.dumps(values[name.group()]), FRAMES)
    (folder / "frames.html").write_text(text)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder}/browser", "--allow-file-access-from-files"]
    command += ["--virtual-time-budget=900000", (folder / "frames.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", shown, re.DOTALL)[1]))
    assert len(found) == len(pages)
    return found


def words(markup):
    """Return the words of a page, without its markup and without its spaces."""
    return re.sub(r"\s", "", html.unescape(re.sub("<[^>]+>", "", markup)))


@pytest.mark.slow
def test_each_notebook_is_a_page_with_its_outputs(book):
    front = (book / "index.html").read_text()
    for path in PATHS:
        assert f'href="notebooks/{path.stem}.html"' in front
        page = words((book / "notebooks" / f"{path.stem}.html").read_text())
        cells = code_cells(read(path))
        printed = [cell for cell in cells if cell.outputs and cell.outputs[0].get("text")]
        for cell in printed:
            line = plain_text(cell).splitlines()[0]
            assert "\x1b" in line or words(html.escape(line)) in page, f"{path.stem}: {line}"


@pytest.mark.slow
def test_diagrams_are_drawn_beforehand(book):
    source = "".join(path.read_text() for path in PATHS)
    drawn = list((book / "_images").glob("*.svg"))
    assert len(drawn) >= source.count("```mermaid") > 0
    assert not any("mermaid.js" in page.read_text() for page in book.rglob("*.html"))


@pytest.mark.slow
@needs_browser
def test_no_page_is_wider_than_a_telephone(book, tmp_path):
    pages = [page for page in book.rglob("*.html") if "_static" not in page.parts]
    wide = {page: one for page, one in looked_at(pages, tmp_path).items() if one["wider"] > 0}
    assert not wide


@pytest.mark.slow
@needs_browser
def test_axe_finds_nothing_but_trifles(book, tmp_path):
    script = next((ROOT / ".venv-book").rglob("axe.min.js")).as_uri()
    pages = [book / "index.html", *(book / f"notebooks/{PATHS[n].stem}.html" for n in (0, 3))]
    for page, found in looked_at(pages, tmp_path, script).items():
        assert found["passes"] > 20
        assert not found["faults"], f"{page}: {found['faults']}"


@pytest.mark.slow
def test_slides_begin_at_headings_and_hide_the_solutions(tmp_path):
    path = PATHS[1]
    made = make("slides", path, "--out", tmp_path / "slides")
    assert made.returncode == 0, made.stderr
    page = (tmp_path / "slides" / f"{path.stem}.html").read_text()
    notes = re.findall('<aside class="notes">(.*?)</aside>', page, re.DOTALL)
    assert sum("<summary>Solution" in one for one in notes) == page.count("<summary>Solution") > 0
    assert "lesson.check" not in words(page)
    assert page.count("<section") > 20


@pytest.mark.parametrize(
    ("markup", "sentence"),
    [
        ('<a href="gone.html">there</a>', "the link “there” leads to gone.html"),
        ('<a href="#gone">there</a>', "the link “there” leads to #gone"),
        ('<img src="a.svg">', "the picture a.svg has no alternative text"),
        ('<script src="https://example.org/a.js"></script>', "fetch https://example.org/a.js"),
        ("<article><h1>a</h1><h3>b</h3></article>", "its headings skip a level"),
        ('<link rel="stylesheet" href="far.css">', "fetch https://example.org/font"),
    ],
)
def test_what_is_wrong_with_a_page_is_one_sentence(tmp_path, markup, sentence):
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "far.css").write_text("@import url(https://example.org/font);")
    (tmp_path / "one.html").write_text(f'<html lang="en"><body>{markup}</body></html>')
    look = (
        f"import pathlib, helpers.book.checks as c; print(*c.problems(pathlib.Path('{tmp_path}')))"
    )
    found = subprocess.check_output([PYTHON, "-c", look], cwd=ROOT, text=True)
    assert found.startswith("one.html: ") and sentence in found and found.count("\n") == 1
