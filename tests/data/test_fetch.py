"""Downloads against a local server that misbehaves: what is bad is named, what is kept is verified."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.data_server import CONTENT, GOOD, LABELS, PARTS, TINY, Handler, serving

from netdepth.config import Component
from netdepth.data import load
from netdepth.data.fetch import download, locate, obtain, user_cache
from netdepth.errors import BadInput, StorageError
from netdepth.progress import DownloadProgress


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("NETDEPTH_MIRROR")
    monkeypatch.setattr("netdepth.data.fetch.STALL_SECONDS", 0.5)
    with serving() as address:
        yield address


def get(*mirrors: str, data_dir: Path | None = None, progress: bool = False) -> dict[str, bytes]:
    download(replace(TINY, mirrors=mirrors), data_dir, progress=progress)
    return obtain(TINY, data_dir)


def cached() -> list[str]:
    folder = user_cache() / "tiny"
    return sorted(os.listdir(folder)) if folder.exists() else []


FAULTS = {
    "no network": "cannot be reached",
    "forbidden": "answers HTTP 403",
    "broken": "answers HTTP 500",
    "truncated": "breaks off after",
    "short": "gzip stream is damaged",
    "other": "found sha256 .*which is 26 bytes",
    "swapped": "found sha256",
    "bomb": "gzip stream holds more than the 204800 bytes expected",
    "circle": "answers HTTP 302",
    "elsewhere": "answers HTTP 302",
    "silent": "stalls: nothing for 0.5 s after 0 bytes",
    "stall": "stalls",
    "trickle": "stalls",
    "endless": "sends more than",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mirror_is_named_with_its_fault_and_leaves_nothing(fault: str, url: str) -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match=FAULTS[fault]) as caught:
        get("http://127.0.0.1:9" if fault == "no network" else f"{url}/{fault}")
    assert time.monotonic() - started < 6
    assert cached() == []
    line = str(caught.value)
    assert "\n" not in line
    for file in TINY.files:  # both are still missing, so both are named
        assert f"{file.name} (sha256 {file.sha256[:12]})" in line
    assert str(user_cache() / "tiny") in line
    assert "--data DIR" in line
    assert "--dataset mnist5k" in line


@pytest.mark.slow
def test_after_every_bad_mirror_a_good_one_delivers(url: str) -> None:
    assert get(*(f"{url}/{fault}" for fault in FAULTS if fault != "no network"), f"{url}/good") == dict(PARTS)
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
        ("encoded", ["images.gz", "labels.gz"]),
    ],
)
def test_what_arrives_is_kept_under_a_name_that_fits_and_found_again(how: str, names: list[str], url: str) -> None:
    assert get(f"{url}/{how}") == dict(PARTS)
    assert cached() == names
    Handler.asked.clear()
    assert get(f"{url}/{how}") == dict(PARTS)
    assert Handler.asked == []


def test_only_what_is_missing_is_downloaded(url: str, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "images").write_bytes(CONTENT)
    assert get(f"{url}/good/", data_dir=tmp_path) == dict(PARTS)
    assert Handler.asked == ["/good/labels.gz"]
    assert sorted(os.listdir(tmp_path / "tiny")) == ["images", "labels.gz"]


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
    def interrupt(self: DownloadProgress, url: str, received: int, total: int | None) -> None:
        assert any(name.endswith(".tmp") for name in cached())
        raise KeyboardInterrupt

    monkeypatch.setattr(DownloadProgress, "received", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get(f"{url}/good")
    assert cached() == []


def test_loading_data_never_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdepth.data.fetch._received", lambda *_, **__: pytest.fail("it asked the network"))
    for name in ("mnist", "fashion-mnist", "cifar10", "cifar100", "cifar10-jpeg"):
        with pytest.raises(StorageError) as caught:
            load(Component(name), data_dir=tmp_path)
        assert "\n" not in str(caught.value)
        assert name == "cifar10-jpeg" or f"get it with: netdepth data fetch {name}" in str(caught.value)


def test_a_mirror_of_ones_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDEPTH_MIRROR", f"{url}/good/")
    assert get() == dict(PARTS)
    assert Handler.asked == ["/good/tiny/images.gz", "/good/tiny/labels.gz"]


@pytest.mark.parametrize("mirror", ["ftp://host/x", "host", "http://", "http://a b", "file:///etc\nx"])
def test_a_mirror_that_is_no_address_is_refused(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDEPTH_MIRROR", mirror)
    with pytest.raises(BadInput, match="NETDEPTH_MIRROR") as caught:
        get()
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_no_fault_of_the_mirror(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    real = open

    def full(path: Path, mode: str = "r", **rest: object) -> object:
        return real("/dev/full" if str(path).endswith(".tmp") else path, mode, **rest)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        with pytest.raises(StorageError, match=r"cannot write .*No space left"):
            get(f"{url}/good")
    assert cached() == []


def test_a_cache_that_cannot_be_made_is_one_line(url: str) -> None:
    user_cache().parent.mkdir(parents=True, exist_ok=True)
    user_cache().write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*tiny"):
        get(f"{url}/good")
