"""A headless Chromium for tests: what a page looks like, what it asks the network for, what it runs."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--disable-domain-reliability",
    "--disable-features=OptimizationHints,MediaRouter,Translate,NetworkTimeServiceQuerying",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}


@dataclass
class Browser:
    """``command`` starts it; ``profile`` is a folder of its own."""

    command: str
    profile: Path

    def run(self, url: str, *options: str, scheme: str = "light", port: int | None = None) -> str:
        """Load ``url`` and return what the browser prints; every host name leads to ``port`` of this machine."""
        own = [f"--user-data-dir={self.profile}", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
        if port is not None:
            own.append(f"--host-resolver-rules=MAP *:80 127.0.0.1:{port},MAP *:443 127.0.0.1:{port}")
        environment = {**os.environ, "HOME": str(self.profile), "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
        done = subprocess.run(
            [self.command, *QUIET, *own, *options, url], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def dom(self, url: str, **settings: Any) -> str:
        """The page's elements after everything in it has run."""
        return self.run(url, "--dump-dom", "--virtual-time-budget=3000", **settings)

    def served(self, page: str) -> tuple[str, list[str]]:
        """As `dom`, of a page that a server on this machine gives; and every host and path that was asked for."""
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{str(self.headers.get('Host', '')).partition(':')[0]}{self.path}")
                self.send_response(200 if self.path == "/page.html" else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(page.encode() if self.path == "/page.html" else b"")

            def log_message(self, *_: Any) -> None:
                """Nothing: ``asked`` is the log."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                port = server.server_address[1]
                return self.dom(f"http://127.0.0.1:{port}/page.html", port=port), asked
            finally:
                server.shutdown()
                thread.join()

    def picture(self, url: str, path: Path, size: tuple[int, int], **settings: Any) -> Path:
        """A screenshot."""
        self.run(url, f"--screenshot={path}", f"--window-size={size[0]},{size[1]}", **settings)
        return path

    def measure(self, page: Path, width: int, script: str, scheme: str = "light") -> Any:
        """Lay ``page`` out ``width`` pixels wide and return the value of ``script``, which knows it as ``doc``.

        The page stands in a frame of a page of ours, as a browser's window cannot be as narrow as a phone.
        """
        frame = page.with_name("frame.html")
        body = html.escape(page.read_text(), quote=True)
        frame.write_text(
            f'<!DOCTYPE html><iframe srcdoc="{body}" style="border:0;width:{width}px;height:4000px"></iframe><script>'
            "onload = () => { const doc = document.querySelector('iframe').contentDocument; const out = "
            f"document.createElement('pre'); out.id = 'measured'; out.textContent = JSON.stringify(({script})(doc)); "
            "document.body.replaceChildren(out); };</script>"
        )
        found = re.search(r'<pre id="measured">(.*?)</pre>', self.dom(frame.as_uri(), scheme=scheme), re.DOTALL)
        assert found is not None, "the page did not load"
        return json.loads(html.unescape(found[1]))


def find_browser(profile: Path) -> Browser:
    """The Chromium of this machine; skips where there is none, or fails if NETDEPTH_REQUIRE names ``browser``."""
    command = next((path for name in NAMES if (path := shutil.which(name))), None)
    if command is None:
        reason = f"no browser: none of {', '.join(NAMES)} is installed"
        from conftest import REQUIRED

        if "browser" in REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return Browser(command, profile)
