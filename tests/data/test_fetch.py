"""Data sets listed, fetched and verified: a local server misbehaves; what is bad is named, what is kept verified."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.data_server import CONTENT, GOOD, LABELS, PARTS, TINY, Handler, serving

from netdepth.config import Component
from netdepth.data import load, manage
from netdepth.data.fetch import SOURCES, download, locate, obtain, user_cache
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


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name mnist, with two small files that the local server has."""
    monkeypatch.setitem(SOURCES, "mnist", replace(TINY, name="mnist"))
    with serving() as url:
        monkeypatch.setenv("NETDEPTH_MIRROR", f"{url}/good")
        yield "mnist"


def rows(data_dir: Path | None) -> dict[str, str]:
    return {row.name: row.where for row in manage.list_datasets(data_dir)}


def test_list_fetch_verify(tiny_mnist: str, tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    assert rows(None) == rows(None) | {"fashion-mnist": "not here", "mnist": "not here", "mnist5k": "in the package"}
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
    for row in (row for row in manage.list_datasets(None) if row.where != "yours"):
        assert row.title
        assert row.licence
        assert row.source.startswith("http")
        assert {"train", "val"} <= set(row.sizes)
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
