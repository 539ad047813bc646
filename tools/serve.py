"""Serve a folder on this machine alone, on the port asked for or the next free one."""

from __future__ import annotations

import http.server
import socket
import sys
from functools import partial
from pathlib import Path

LOOPBACK = "127.0.0.1"
TRIES = 50


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing about requests that worked, and lets no browser keep an old page."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".ipynb": "application/x-ipynb+json",
        ".woff2": "font/woff2"}

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """At an unknown address show the site's own page, as hosts do."""
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        content = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        if str(getattr(code, "value", code)) >= "400":
            super().log_request(code, size)


def taken(port: int) -> bool:
    """Whether something on this machine answers on `port` already."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of `folder` on `port`, or on the next port that is free, and say so."""
    handler = partial(Quiet, directory=str(folder))
    for candidate in range(port, min(port + TRIES, 65536)):
        if not taken(candidate):
            try:
                return http.server.ThreadingHTTPServer((LOOPBACK, candidate), handler)
            except OSError:
                pass
        print(f"Port {candidate} is taken.", flush=True)
    sys.exit(f"No free port from {port} on. Say another: make book PORT=9000")


def serve(folder: Path, port: int) -> int:
    """Serve `folder` until interrupted."""
    with server(folder, port) as running:
        print(f"\nThe book is at  http://{LOOPBACK}:{running.server_address[1]}/  (Ctrl-C stops)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print("\nStopped.")
    return 0
