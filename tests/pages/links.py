"""Read the built pages as text: their anchors, links and images."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ADDRESSES = {"a": ("href",), "link": ("href",), "img": ("src",), "script": ("src",), "source": ("src", "srcset"),
             "iframe": ("src",), "video": ("src", "poster"), "audio": ("src",), "object": ("data",)}


@dataclass
class PageText:
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)  # (tag, address)
    images: list[tuple[str, str | None]] = field(default_factory=list)  # (address, alt)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = PageText()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.page.anchors.update(filter(None, (values.get("id"), values.get("name") if tag == "a" else None)))
        kind = "canonical" if tag == "link" and values.get("rel") == "canonical" else tag  # said, not loaded
        for name in ADDRESSES.get(tag, ()):
            if values.get(name):
                self.page.links.append((kind, values[name]))
        if tag == "img":
            self.page.images.append((values.get("src") or "", values.get("alt")))


def read(path: Path) -> PageText:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf8"))
    return reader.page


def read_all(html: Path) -> dict[Path, PageText]:
    """Every page of a site, by path; the copies of the sources are not pages."""
    pages = {path: read(path) for path in sorted(html.rglob("*.html"))
             if not {"_sources", "_static"} & set(path.relative_to(html).parts)}
    if not pages:
        raise FileNotFoundError(f"there is no page in {html.name}: the build has failed")
    return pages


def broken(html: Path, pages: dict[Path, PageText]) -> list[str]:
    """List the internal addresses that lead to no file or to no anchor."""
    faults = []
    for path, page in pages.items():
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            where = f"{path.relative_to(html)}: <{tag}> {address}"
            if not target.is_relative_to(html.resolve()) or not target.is_file():
                faults.append(f"{where} leads to no file")
            elif parts.fragment and target.suffix == ".html":
                known = pages.get(target) or next((p for q, p in pages.items() if q.resolve() == target), None)
                if known is not None and unquote(parts.fragment) not in known.anchors:
                    faults.append(f"{where} leads to no anchor")
    return faults


def loaded_from_elsewhere(html: Path, pages: dict[Path, PageText], own: str = "") -> list[str]:
    """List what a page would load (not merely link to) from another host than that of the site's `own` address, if it has one."""
    return [f"{path.relative_to(html)}: <{tag}> {address}" for path, page in pages.items()
            for tag, address in page.links
            if tag not in ("a", "canonical") and not (own and address.startswith(own)) and (urlsplit(address).scheme in ("http", "https") or address.startswith("//"))]
