"""What stands behind `netdepth data list | fetch | verify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.data_server import TINY, serving

from netdepth.config import Component
from netdepth.data import load, manage
from netdepth.data.fetch import SOURCES, user_cache
from netdepth.errors import BadInput


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
