"""A site as a stranger's host shows it: under a sub-path, its own page at unknown addresses; and what would break there."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.pages.links import read_all
from tools.serve import Quiet

ADDRESS_ITSELF = re.compile(r'<(?:link rel="canonical"|meta (?:property|name)="(?:og|twitter):)')  # these must be absolute
IN_MARKUP = re.compile(r'<(form|meta)\b[^>]*?(?:action|content)="([^"]*)"', re.IGNORECASE)
IN_STYLE = re.compile(r"url\(\s*['\"]?(/[^/][^)'\"]*|https?:[^)'\"]*|//[^)'\"]*)")


@contextlib.contextmanager
def host(folder: Path, under: str = "/some/sub-path/") -> Iterator[str]:
    """Serve a folder under a sub-path as static hosts do; whatever is asked for above it is unknown, without a page."""

    class Host(Quiet):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def translate_path(self, path: str) -> str:
            return super().translate_path("/" + path[len(under):] if path.startswith(under) else "/no/such/file")

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{under}"
    finally:
        server.shutdown()
        server.server_close()


def tied(html: Path, site: str = "") -> list[str]:
    """List every address that ties a site to one place: from the top of a host, or to where it happens to be published.

    Links to the published site stand where they must: in `<link rel="canonical">`, in cards, in the sitemap, and on the page
    for unknown addresses, which has no place of its own.
    """
    faults = []
    for path, page in read_all(html).items():
        name, text = path.relative_to(html).as_posix(), path.read_text(encoding="utf8")
        forms = [(tag, re.sub(r"^\d+;\s*url=", "", address)) for tag, address in IN_MARKUP.findall(ADDRESS_ITSELF.sub("<", text))]
        for tag, address in [*page.links, *forms]:
            parts = urlsplit(address)
            ours = bool(site) and address.startswith(site) and name != "404.html" and tag != "canonical"
            if ours or parts.scheme == "file" or (not parts.scheme and address.startswith("/")):
                faults.append(f"{name}: <{tag}> {address}")
    for path in sorted(html.rglob("*.css")):
        if "mathjax" not in path.parts:
            faults += [f"{path.relative_to(html).as_posix()}: url({address})" for address in IN_STYLE.findall(path.read_text(encoding="utf8"))]
    return faults
