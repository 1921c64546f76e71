"""Downloads against a local server that misbehaves in every way we have met, and files that lie about."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netdepth.config import Component
from netdepth.data import load, manage
from netdepth.data.fetch import SOURCES, OfficialFile, Source, locate, obtain, user_cache
from netdepth.errors import BadInput, StorageError

CONTENT = bytes(range(256)) * 800  # 200 kB, longer than a socket buffers in one go
LABELS = bytes(3000)
GOOD = gzip.compress(CONTENT, mtime=0)
BOMB = gzip.compress(bytes(30_000_000), mtime=0)
STALL = 0.6
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


@pytest.fixture
def url() -> Iterator[str]:
    Handler.asked.clear()
    Handler.released = threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def get(mirrors: list[str], data_dir: Path | None = None) -> dict[str, bytes]:
    return obtain(TINY, data_dir, mirrors=mirrors, progress=False, stall_seconds=STALL)


def cached() -> list[str]:
    folder = user_cache() / "tiny"
    return sorted(os.listdir(folder)) if folder.exists() else []


FAULTS = {
    "forbidden": "answers HTTP 403",
    "broken": "answers HTTP 500",
    "truncated": "breaks off after",
    "short": "gzip stream is truncated",
    "other": "found sha256 .*no IDX file",
    "swapped": "found sha256",
    "bomb": "gzip stream holds more than the 204800 bytes expected",
    "circle": "redirects without end",
    "elsewhere": "fails .InvalidSchema",
    "silent": "(no answer within|stalls)",
    "stall": "stalls",
    "trickle": "stalls",
    "endless": "sends more than",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_named_with_its_fault_and_leaves_nothing(fault: str, url: str) -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match=FAULTS[fault]) as caught:
        get([f"{url}/{fault}"])
    assert time.monotonic() - started < STALL + 2
    assert cached() == []
    line = str(caught.value)
    assert "\n" not in line
    for file in TINY.files:  # both are still missing, so both are named
        assert f"{file.name} (sha256 {file.sha256[:12]})" in line
    assert str(user_cache() / "tiny") in line
    assert "--data DIR" in line
    assert "--dataset mnist5k" in line


def test_after_every_bad_mirror_a_good_one_delivers(url: str) -> None:
    assert get([f"{url}/{fault}" for fault in FAULTS] + [f"{url}/good"]) == dict(PARTS)
    assert cached() == ["images.gz", "labels.gz"]
    assert (user_cache() / "tiny" / "images.gz").read_bytes() == GOOD
    # The mirror that delivered is asked first for the next file.
    assert [path for path in Handler.asked if path.endswith("labels.gz")] == ["/good/labels.gz"]


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("good", ["images.gz", "labels.gz"]),
        ("redirect", ["images.gz", "labels.gz"]),
        ("plain", ["images", "labels"]),
        ("encoded", ["images", "labels"]),
    ],
)
def test_what_arrives_is_kept_under_a_name_that_fits_and_found_again(how: str, names: list[str], url: str) -> None:
    assert get([f"{url}/{how}"]) == dict(PARTS)
    assert cached() == names
    Handler.asked.clear()
    assert get([f"{url}/{how}"]) == dict(PARTS)
    assert Handler.asked == []


def test_only_what_is_missing_is_downloaded(url: str, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "images").write_bytes(CONTENT)
    assert get([f"{url}/good/"], tmp_path) == dict(PARTS)
    assert Handler.asked == ["/good/labels.gz"]
    assert cached() == ["labels.gz"]


def test_local_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path / "given", tmp_path / "named", user_cache()):
        (root / "tiny").mkdir(parents=True)
        (root / "tiny" / "labels.gz").write_bytes(gzip.compress(LABELS))
    (user_cache() / "tiny" / "images.gz").write_bytes(GOOD)
    monkeypatch.setenv("NETDEPTH_DATA", str(tmp_path / "named"))
    assert locate(TINY, tmp_path / "given") == {
        "images.gz": user_cache() / "tiny" / "images.gz",
        "labels.gz": tmp_path / "given" / "tiny" / "labels.gz",
    }
    assert locate(TINY, None)["labels.gz"] == tmp_path / "named" / "tiny" / "labels.gz"


def test_an_interrupted_download_leaves_no_half_file(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: threading.Thread, timeout: float | None = None) -> None:
        time.sleep(0.2)  # until the first bytes are on the disk
        assert any(name.endswith(".tmp") for name in cached())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get([f"{url}/trickle"])
    assert cached() == []


def test_no_mirror_at_all_is_one_line(tmp_path: Path) -> None:
    """The test environment's mirror refuses connections: what a machine without a network meets."""
    with pytest.raises(StorageError, match=r"no mirror delivers mnist/train-images-idx3-ubyte\.gz") as caught:
        load(Component("mnist"), data_dir=tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert "cannot be reached" in line
    for file in SOURCES["mnist"].files:
        assert f"{file.name} (sha256 {file.sha256[:12]})" in line
    assert "--dataset mnist5k" in line


def test_a_mirror_of_ones_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDEPTH_MIRROR", f"{url}/good/")
    assert obtain(TINY, None, progress=False) == dict(PARTS)
    assert Handler.asked == ["/good/tiny/images.gz", "/good/tiny/labels.gz"]


@pytest.mark.parametrize("mirror", ["ftp://host/x", "host", "http://", "http://a b", "file:///etc\nx"])
def test_a_mirror_that_is_no_address_is_refused(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDEPTH_MIRROR", mirror)
    with pytest.raises(BadInput, match="NETDEPTH_MIRROR") as caught:
        obtain(TINY, None, progress=False)
    assert "\n" not in str(caught.value)


def test_progress_goes_to_standard_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    obtain(TINY, None, mirrors=[f"{url}/good"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"downloading {name} from {url.removeprefix('http://')}" for name in dict(PARTS)]


def test_a_full_disk_is_no_fault_of_the_mirror(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    real = open

    def full(path: Path, mode: str = "r", **rest: object) -> object:
        return real("/dev/full" if str(path).endswith(".tmp") else path, mode, **rest)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        with pytest.raises(StorageError, match=r"cannot write .*No space left"):
            get([f"{url}/good"])
    assert cached() == []


def test_a_cache_that_cannot_be_made_is_one_line(url: str) -> None:
    user_cache().parent.mkdir(parents=True, exist_ok=True)
    user_cache().write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*tiny"):
        get([f"{url}/good"])


# --- netdepth data list | fetch | verify -------------------------------------------------------


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """The name mnist, with two small files that the local server has."""
    from dataclasses import replace

    monkeypatch.setitem(SOURCES, "mnist", replace(TINY, name="mnist"))
    monkeypatch.setenv("NETDEPTH_MIRROR", f"{url}/good")
    return "mnist"


def rows(data_dir: Path | None) -> dict[str, str]:
    return {row.name: row.where for row in manage.list_datasets(data_dir)}


def test_list_fetch_verify(tiny_mnist: str, tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    assert rows(None) == {"fashion-mnist": "not here", "mnist": "not here", "mnist5k": "in the package"}
    assert [row.status for row in manage.verify("mnist")] == ["missing", "missing"]
    assert manage.fetch("mnist", data, progress=False) == data / "mnist"
    assert rows(data)["mnist"] == str(data / "mnist")
    assert [(row.file, row.status, row.message) for row in manage.verify("mnist", data)] == [
        ("images.gz", "ok", ""),
        ("labels.gz", "ok", ""),
    ]
    (data / "mnist" / "labels.gz").write_bytes(b"damaged")
    wrong = manage.verify("mnist", data)[1]
    assert (wrong.status, wrong.path, wrong.digest) == ("wrong", data / "mnist" / "labels.gz", TINY.files[1].sha256)
    assert "found sha256" in wrong.message
    with pytest.raises(BadInput, match="expected sha256"):
        manage.fetch("mnist", data, progress=False)
    assert (data / "mnist" / "labels.gz").read_bytes() == b"damaged"
    (data / "mnist" / "labels.gz").unlink()
    assert rows(data)["mnist"] == "1 of 2 files"


def test_fetch_without_a_folder_goes_to_the_cache(tiny_mnist: str) -> None:
    assert manage.fetch("mnist", progress=False) == user_cache() / "mnist"
    assert sorted(os.listdir(user_cache() / "mnist")) == ["images.gz", "labels.gz"]


def test_what_comes_with_a_package_needs_no_fetching() -> None:
    assert manage.fetch("mnist5k") is None
    (row,) = manage.verify("mnist5k")
    assert (row.file, row.status) == ("mnist_5k.csv.gz", "ok")


@pytest.mark.parametrize("call", [manage.fetch, manage.verify])
def test_an_unknown_data_set_names_the_nearest(call: Callable[[str], object]) -> None:
    with pytest.raises(BadInput, match="did you mean 'mnist'"):
        call("mnits")


def test_every_built_in_data_set_says_where_it_comes_from() -> None:
    for row in manage.list_datasets(None):
        assert row.title
        assert row.licence
        assert row.source.startswith("http")
        assert sum(row.sizes.values()) in (70_000, 5_000)
    assert {row.name: row.licence for row in manage.list_datasets(None)}["fashion-mnist"] == "MIT"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files_verify(name: str, real_data: Callable[[str], Path]) -> None:
    assert [row.status for row in manage.verify(name, real_data(name))] == ["ok"] * 4


@pytest.mark.data("mnist")
@pytest.mark.data("fashion-mnist")
def test_the_files_of_the_other_data_set_are_recognised(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for path in (real_data("fashion-mnist") / "fashion-mnist").iterdir():
        (tmp_path / "mnist" / path.name).symlink_to(path)
    with pytest.raises(BadInput, match=r"is not mnist/.*the content of fashion-mnist/.*expected sha256"):
        load(Component("mnist"), data_dir=tmp_path)


def test_a_data_folder_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"--data '.*nowhere' is not a folder"):
        load(Component("mnist"), data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("NETDEPTH_DATA", "\x01nowhere")
    with pytest.raises(BadInput, match=r"NETDEPTH_DATA '\\x01nowhere' is not a folder"):
        load(Component("mnist"), data_dir=None)
