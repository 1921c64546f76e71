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
        sent = {
            "good": body,
            "encoded": body,
            "plain": gzip.decompress(body),
            "short": body[: len(body) // 2],
            "other": b"<html>please log in</html>",
            "swapped": gzip.compress(CONTENT[::-1]),
            "bomb": BOMB,
        }
        moved = {"redirect": f"/good/{name}", "circle": self.path, "elsewhere": "file:///etc/passwd"}
        if how in sent:
            self.head(200, len(sent[how]), **({"Content-Encoding": "gzip"} if how == "encoded" else {}))
            self.wfile.write(sent[how])
        elif how in moved:
            self.head(302, 0, Location=moved[how])
        elif how in ("forbidden", "broken"):
            self.send_error(403 if how == "forbidden" else 500)
        else:
            getattr(self, f"do_{how}")(body)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def do_truncated(self, body: bytes) -> None:
        self.head(200, len(body))
        self.wfile.write(body[: len(body) // 2])

    def do_silent(self, body: bytes) -> None:
        self.released.wait(30)

    def do_stall(self, body: bytes) -> None:
        self.head(200, len(body))
        self.wfile.write(body[:10])
        self.wfile.flush()
        self.released.wait(30)

    def do_trickle(self, body: bytes) -> None:
        self.head(200, len(body))
        for value in body:
            if self.released.wait(0.1):
                return
            self.wfile.write(bytes([value]))
            self.wfile.flush()

    def do_endless(self, body: bytes) -> None:
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
