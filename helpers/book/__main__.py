"""Make the course's book or slides (``make book``, ``make slides``)."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from helpers.book import site, slides, stage


def main() -> None:
    """Make what the command line names; exit with 1 if something is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m helpers.book", description=__doc__)
    parser.add_argument("what", choices=["site", "slides"])
    parser.add_argument("notebook", nargs="*", type=Path, help="for slides; default: all")
    parser.add_argument("--out", type=Path, help="default: book/ or slides/")
    args = parser.parse_args()
    begin = time.monotonic()
    if args.what == "site":
        out = args.out or stage.ROOT / "book"
        problems, first = site.build(out.resolve()), "index.html"
    else:
        out = args.out or stage.ROOT / "slides"
        chosen = args.notebook or sorted(stage.NOTEBOOKS.glob("*.ipynb"))
        problems, first = slides.build(chosen, out.resolve()), f"{chosen[0].stem}.html"
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"The {args.what} of the course must be mended: {len(problems)} found.")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    print(f"{out / first}: {time.monotonic() - begin:.0f} s, {size:.0f} MB")


if __name__ == "__main__":
    main()
