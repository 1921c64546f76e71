"""One bounded HTTP download: pooch fetches, this file sets the limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO, Any

__all__ = ["Progress", "Refused", "transfer"]

Progress = Callable[[str, int, int | None], None]
"""Called with the address, the bytes received so far and their total (None: not announced)."""

CONNECT_SECONDS = 5.0


class Refused(Exception):
    """A download was given up; the message says why in a few words."""


class _Sink:
    """The file pooch writes to: counts the bytes, refuses too many, and knows when the last ones came."""

    def __init__(self, handle: IO[bytes], limit: int, report: Callable[[int, int | None], None]) -> None:
        self.handle, self.limit, self.report = handle, limit, report
        self.received = 0
        self.moved = time.monotonic()
        self.abandoned = False
        self.response: Any = None

    def answered(self, response: Any, **_: Any) -> None:
        """requests' response hook, called for every redirect and for the answer itself."""
        self.response = response
        self.moved = time.monotonic()

    def total(self) -> int | None:
        length = self.response.headers.get("content-length", "")
        return int(length) if length.isdecimal() else None

    def write(self, chunk: bytes) -> int:
        if self.abandoned:
            raise Refused("abandoned")
        self.received += len(chunk)
        if self.received > self.limit:
            raise Refused(f"sends more than the {self.limit} bytes the file can have")
        self.handle.write(chunk)
        self.moved = time.monotonic()
        self.report(self.received, self.total())
        return len(chunk)

    def flush(self) -> None:
        """pooch flushes after each chunk; the caller does it once, at the end."""


def transfer(url: str, handle: IO[bytes], *, limit: int, report: Progress, stall_seconds: float) -> None:
    """Write what ``url`` delivers to ``handle``, ``limit`` bytes at most; redirects are followed.

    It runs in a thread of its own, because a socket timeout does not end a download that
    trickles: a byte now and then is enough to keep a read of a kilobyte waiting.

    Raises:
        Refused: no answer, an error status, too many bytes, or nothing for ``stall_seconds``.
        OSError: ``handle`` cannot be written to.
    """
    import requests  # noqa: F401  (slow to import: done before the clock starts)

    sink = _Sink(handle, limit, lambda received, total: report(url, received, total))
    outcome: list[BaseException | None] = []
    worker = threading.Thread(target=lambda: outcome.append(_fetch(url, sink, stall_seconds)), daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.05)
            if worker.is_alive() and time.monotonic() - sink.moved > stall_seconds:
                raise Refused(f"stalls: nothing for {stall_seconds:g} s after {sink.received} bytes")
    finally:
        sink.abandoned = True
    if outcome[0] is not None:
        raise outcome[0]


def _fetch(url: str, sink: _Sink, stall_seconds: float) -> BaseException | None:
    import pooch
    import requests
    import urllib3

    timeout = (min(CONNECT_SECONDS, stall_seconds), stall_seconds)
    try:
        pooch.HTTPDownloader(chunk_size=8192, timeout=timeout, hooks={"response": sink.answered})(url, sink, None)
    except requests.HTTPError:
        return Refused(f"answers HTTP {sink.response.status_code}")
    except requests.Timeout:
        return Refused(f"no answer within {stall_seconds:g} s")
    except requests.exceptions.ChunkedEncodingError:
        return Refused(f"breaks off after {sink.received} bytes")
    except requests.TooManyRedirects:
        return Refused("redirects without end")
    except requests.ConnectionError as error:
        stalled = isinstance(error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError)
        return Refused(f"stalls after {sink.received} bytes" if stalled else "cannot be reached")
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        return Refused(f"fails ({type(error).__name__})")
    except Exception as error:  # a full disk, say: raised again where the caller can catch it
        return error
    finally:
        if sink.response is not None:
            sink.response.close()
    return None
