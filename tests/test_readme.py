"""What the README says can be found where it says."""

import re
import subprocess
import sys

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
    shown = [sys.executable, "-m", "helpers", "--help"]
    told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"python -m helpers (\w+)", README):
        assert re.search(rf"^    {name}\b", told, re.MULTILINE), name
    targets = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{''.join(name)}:", targets, re.MULTILINE), name
