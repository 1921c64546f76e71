"""A mirror on this machine that misbehaves in every way a mirror can; the address says how."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator

from netdepth.data.fetch import OfficialFile, Source

CONTENT = bytes(range(256)) * 800  # 200 kB, longer than a socket buffers in one go
LABELS = bytes(3000)
GOOD = gzip.compress(CONTENT, mtime=0)
BOMB = gzip.compress(bytes(30_000_000), mtime=0)
PARTS = [("images.gz", CONTENT), ("labels.gz", LABELS)]
TINY = Source(
    name="tiny",
    title="two files",
    sizes={},
    licence="",
    origin="",
    files=tuple(OfficialFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in PARTS),
)


class Handler(http.server.BaseHTTPRequestHandler):
    """The first folder of a path chooses how to misbehave."""

    asked: list[str] = []  # noqa: RUF012
    released: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        _, how, *_, name = self.path.split("/")
        body = gzip.compress(dict(PARTS)[name], mtime=0)
        getattr(self, f"do_{how}")(name, body)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def send(self, body: bytes, **headers: str) -> None:
        self.head(200, len(body), **headers)
        self.wfile.write(body)

    def do_good(self, name: str, body: bytes) -> None:
        self.send(body)

    def do_plain(self, name: str, body: bytes) -> None:
        self.send(gzip.decompress(body))

    def do_encoded(self, name: str, body: bytes) -> None:
        self.send(body, Content_Encoding="gzip")

    def do_forbidden(self, name: str, body: bytes) -> None:
        self.send_error(403)

    def do_broken(self, name: str, body: bytes) -> None:
        self.send_error(500)

    def do_truncated(self, name: str, body: bytes) -> None:
        self.head(200, len(body))
        self.wfile.write(body[: len(body) // 2])

    def do_short(self, name: str, body: bytes) -> None:
        self.send(body[: len(body) // 2])

    def do_other(self, name: str, body: bytes) -> None:
        self.send(b"<html>please log in</html>")

    def do_swapped(self, name: str, body: bytes) -> None:
        self.send(gzip.compress(CONTENT[::-1]))

    def do_bomb(self, name: str, body: bytes) -> None:
        self.send(BOMB)

    def do_redirect(self, name: str, body: bytes) -> None:
        self.head(302, 0, Location=f"/good/{name}")

    def do_circle(self, name: str, body: bytes) -> None:
        self.head(302, 0, Location=self.path)

    def do_elsewhere(self, name: str, body: bytes) -> None:
        self.head(302, 0, Location="file:///etc/passwd")

    def do_silent(self, name: str, body: bytes) -> None:
        self.released.wait(30)

    def do_stall(self, name: str, body: bytes) -> None:
        self.head(200, len(body))
        self.wfile.write(body[:10])
        self.wfile.flush()
        self.released.wait(30)

    def do_trickle(self, name: str, body: bytes) -> None:
        self.head(200, len(body))
        for value in body:
            if self.released.wait(0.1):
                return
            self.wfile.write(bytes([value]))
            self.wfile.flush()

    def do_endless(self, name: str, body: bytes) -> None:
        self.head(200, None)
        while not self.released.is_set():
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hangs up on most of what is sent here."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server on a free port of this machine; yields its address."""
    Handler.asked.clear()
    Handler.released = threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        Handler.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
