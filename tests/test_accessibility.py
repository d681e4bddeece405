"""What a machine can see of the checklist of notebooks-for-all: pages for every kind of reader.

The order of headings and the descriptions of pictures in the text are in test_form.py; the book's
pages are looked at in test_book.py.
"""

import re

from reading import code_cells, each_notebook, read, tags, where

from helpers import lesson

PAPER = "#ffffff"
# What is spelled out where a page first uses it. Whoever comes here knows API, AWS, HTTP, JSON.
ACRONYMS = {
    "ACM": "Certificate Manager",
    "AMI": "Amazon Machine Image",
    "ARN": "Amazon Resource Name",
    "DNS": "Domain Name System",
    "EBS": "Elastic Block Store",
    "EC2": "Elastic Compute Cloud",
    "ECR": "Elastic Container Registry",
    "EKS": "Elastic Kubernetes Service",
    "IAM": "Identity and Access Management",
    "JWT": "JSON Web Token",
    "KMS": "Key Management Service",
    "KVM": "Kernel-based Virtual Machine",
    "NAT": "network address translation",
    "OOM": "out of memory",
    "PSS": "proportional set size",
    "RBAC": "role-based access control",
    "RSS": "resident set size",
    "S3": "Simple Storage Service",
    "SBOM": "software bill of materials",
    "SDK": "software development kit",
    "SNS": "Simple Notification Service",
    "STS": "Security Token Service",
    "TCG": "Tiny Code Generator",
    "VM": "virtual machine",
    "VPC": "virtual private cloud",
}


def texts(notebook):
    """Yield (cell, its text without code) for each cell of prose."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield cell, re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)


def outputs(notebook, kind):
    """Yield (cell, data, metadata) of each output that has data of a MIME type."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if kind in output.get("data", {}):
                yield cell, output.data[kind], output.metadata.get(kind, {})


def contrast(one, other=PAPER):
    """Return the contrast of two colours (#rrggbb) as WCAG 2 defines it: from 1 to 21."""

    def luminance(colour):
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear))

    dark, bright = sorted([luminance(one), luminance(other)])
    return (bright + 0.05) / (dark + 0.05)


@each_notebook
def test_the_first_cell_has_a_summary(path):
    title, summary, *_ = read(path).cells[0].source.split("\n\n")
    assert title.startswith("# ") and summary.startswith("At the end ") and summary.endswith(".")


@each_notebook
def test_links_say_where_they_lead(path):
    notebook = read(path)
    for cell, text in texts(notebook):
        for words in re.findall(r"(?<!!)\[([^\]]*)\]\(", text):
            vague = re.fullmatch(
                r"(click |see )?(here|this|it|link|page|this (link|page))", words, re.I
            )
            assert words and not vague, f"{where(notebook, cell)}: a link is called {words!r}"
        bare = re.search(r"(?<!\()https?://\S+", text)
        assert not bare, f"{where(notebook, cell)}: {bare.group()} needs words in its place"


@each_notebook
def test_figures_and_diagrams_are_described(path):
    notebook = read(path)
    for cell, _, metadata in outputs(notebook, "image/png"):
        words = metadata.get("alt", "").split()
        assert len(words) >= 4, f"the figure of {where(notebook, cell)} has no description"
    for cell, text in texts(notebook):
        drawn, said = cell.source.count("```mermaid"), text.count("The picture says: ")
        assert drawn <= said, (
            f"{where(notebook, cell)}: after a diagram stands 'The picture says: …'"
        )


@each_notebook
def test_tables_have_headings_and_are_not_too_wide(path):
    notebook = read(path)
    for cell, _ in texts(notebook):
        for row in re.findall(r"^(\|.*\|)\n\|[-:| ]+\|$", cell.source, re.MULTILINE):
            names = re.split(r"(?<!\\)\|", row)[1:-1]
            assert all(map(str.strip, names)), f"{where(notebook, cell)}: a column has no name"
            assert len(names) <= 5, f"{where(notebook, cell)}: a table has {len(names)} columns"
    for cell, markup, _ in outputs(notebook, "text/html"):
        assert ("<table" in markup) <= ("<th" in markup), f"{where(notebook, cell)}: no headings"


@each_notebook
def test_no_pictograms_in_the_text(path):
    notebook = read(path)
    for cell, text in texts(notebook):
        found = re.search("[\U0001f000-\U0001faff\u2600-\u27bf]", text)
        assert not found, f"{where(notebook, cell)}: say {found.group()} in words"


@each_notebook
def test_acronyms_are_spelled_out_at_first_use(path):
    prose = "\n".join(text for _, text in texts(read(path)))
    prose = re.sub(r"^#.*|\[[^\]]*\]\([^)]*\)", "", prose, flags=re.MULTILINE)  # names of pages
    prose = re.sub(r"[*\s]+", " ", prose)
    for short, name in ACRONYMS.items():
        used = re.search(rf"\b{short}s?\b", prose)
        spelled = re.search(re.sub("[ -]", "[ -]", name), prose, re.IGNORECASE)
        first = used and spelled and spelled.start() < used.end() + 20
        assert first or not used, f"{short} is not spelled out at first ({name})"


@each_notebook
def test_checks_are_read_aloud_when_they_change(path):
    notebook = read(path)
    shown = {id(cell): markup for cell, markup, _ in outputs(notebook, "text/html")}
    for cell in code_cells(notebook):
        if "check" in tags(cell):
            assert 'role="status"' in shown[id(cell)], f"{where(notebook, cell)} is silent"


@each_notebook
def test_coloured_text_can_be_read(path):
    notebook = read(path)
    for cell, markup, _ in outputs(notebook, "text/html"):
        for colour in re.findall(r"(?<![-\w])color:\s*(#[0-9a-fA-F]{6})", markup):
            assert contrast(colour) >= 4.5, f"{where(notebook, cell)}: {colour} is too pale"


def test_the_colours_of_a_check_stand_out():
    assert round(contrast("#767676"), 2) == 4.54  # the example that WCAG's readers know
    for name in ("namespaces", "tcg"):  # of pass and not yet; the words have the text's colour
        assert contrast(lesson.COLOURS[name]) >= 3
