"""Look through built pages for what a reader would stumble over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page fetches by itself, and where the address stands.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@cache
def _parse(page: Path):
    from bs4 import BeautifulSoup

    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def _anchors(page: Path) -> set[str]:
    return {tag.get("id") or tag.get("name") for tag in _parse(page).select("[id], a[name]")}


def _leads_nowhere(page: Path, address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return False  # another site: not asked
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return True
    fragment = unquote(parts.fragment)
    return target.suffix == ".html" and bool(fragment) and fragment not in _anchors(target)


@cache
def _fetched_by(sheet: Path) -> list[str]:
    return re.findall(r"(?:url\(|@import )\W*((?:https?:)?//[^)'\"]+)", sheet.read_text("utf-8"))


def _of_page(page: Path) -> Iterator[str]:
    soup = _parse(page)
    if not (soup.html and soup.html.get("lang")):
        yield "the page does not say its language."
    for name, attribute in FETCHED.items():
        for tag in soup.select(f"{name}[{attribute}]"):
            address = tag[attribute]
            if urlsplit(address).netloc:
                yield f"it would fetch {address} from another host."
            elif _leads_nowhere(page, address):
                yield f"it needs {address}, which is not there."
            elif address.partition("?")[0].endswith(".css"):
                for far in _fetched_by(page.parent / address.partition("?")[0]):
                    yield f"its style sheet {address} would fetch {far} from another host."
    for link in soup.select("a[href]"):
        if _leads_nowhere(page, link["href"]):
            words = " ".join(link.get_text().split())
            yield f"the link “{words}” leads to {link['href']}, which is not there."
    for image in soup.select("img"):
        if not image.get("alt", "").strip():
            yield f"the picture {image.get('src', '')[:60]} has no alternative text."
    levels = [int(tag.name[1]) for tag in soup.select("article :is(h1, h2, h3, h4, h5, h6)")]
    if levels and (levels.count(1) != 1 or levels[0] != 1):
        yield "it does not begin with one title."
    if any(below > above + 1 for above, below in zip(levels, levels[1:], strict=False)):
        yield "its headings skip a level."


def problems(book: Path) -> list[str]:
    """Return what is wrong with the pages of a book: links, pictures, headings, addresses."""
    _parse.cache_clear()
    _anchors.cache_clear()
    return [
        f"{page.relative_to(book)}: {problem}"
        for page in sorted(book.rglob("*.html"))
        if "_static" not in page.parts
        for problem in _of_page(page)
    ]
