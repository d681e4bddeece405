"""What the README says can be found where it says."""

import re

from reading import ROOT

README = (ROOT / "README.md").read_text()


def test_links_lead_to_files():
    for target in re.findall(r"(?:\]\(|src=\")([^)\"#:]+)[)\"]", README):
        assert (ROOT / target).exists(), target


def test_messages_are_those_of_the_helpers():
    trouble = README.split("## When something goes wrong")[1].split("\n## ")[0]
    said = "\n".join(file.read_text() for file in sorted((ROOT / "helpers").rglob("*.py")))
    said = re.sub(r'"\s*\n\s*f?"', "", said)  # a text that goes on in the next line
    messages = re.findall(r"^\| `([^`]+)` \|", trouble, re.MULTILINE)
    assert messages
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in said, f"no helper says {part!r}"


def test_commands_exist():
    commands = (ROOT / "helpers/__main__.py").read_text()
    for name in re.findall(r"python -m helpers (\w+)", README):
        assert f"def {name}(" in commands or f'"{name}"' in commands, name
    made = (ROOT / "Makefile").read_text()
    for name in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^{name}:", made, re.MULTILINE) or name in ("again",), name
