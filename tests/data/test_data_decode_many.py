"""Many pictures decoded in processes, once, into a cache that is checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_decode import PNG, saved

from netdepth.data import decode
from netdepth.data.decode import Pictures, content_digest, decoded
from netdepth.data.fetch import user_cache
from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.files import pictures


def colours(count: int, part: str = "train") -> tuple[Pictures, np.ndarray, dict[str, bytes]]:
    """``count`` single-coloured pictures 3 wide and 2 high, their pixels [N, 3, 2, 3], and the files by name."""
    values = np.random.default_rng(count).integers(0, 256, (count, 3), dtype=np.uint8)
    files = {
        f"{part}/c/{i:03}.png": saved(Image.new("RGB", (3, 2), tuple(int(v) for v in value)))
        for i, value in enumerate(values)
    }
    names = list(files)
    digests = [hashlib.sha256(content).hexdigest() for content in files.values()]
    made = Pictures("here", names, np.zeros(count, np.int64), content_digest(names, digests), lambda i: files[names[i]])
    return made, np.broadcast_to(values[:, :, None, None], (count, 3, 2, 3)), files


def test_processes_decode_what_one_process_does_and_name_the_first_that_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode, "WORTH_SECONDS", -1.0)
    monkeypatch.setattr(decode, "CHUNK_PICTURES", 10)
    monkeypatch.setattr("netdepth.progress.QUIET_SECONDS", 0.0)
    some, expected, files = colours(300)
    order = np.random.default_rng(5).permutation(300)
    made = decoded([(some, order[:200]), (some, order[200:])], channels=3, size=None)
    np.testing.assert_array_equal(made, expected[order])
    assert "decoding pictures: 16 of 300" in capfd.readouterr().err
    files["train/c/250.png"] = b"broken"
    files["train/c/120.png"] = saved(Image.new("RGB", (5, 7)))
    with pytest.raises(BadInput) as caught:
        decoded([(some, np.arange(300))], channels=3, size=None)
    assert str(caught.value) == (
        "'here/train/c/120.png' is not acceptable: it is 5 × 7 pixels where others are 3 × 2; "
        "bring all to one size, such as --set dataset.size=2"
    )


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(decode._Process({"channels": 3, "size": None, "shape": (2, 3)})) as process:
        process.process.kill()
        with pytest.raises(RunFailed, match="a process that decodes pictures ended with -9"):
            process(1, iter([PNG]))


def test_pictures_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    some, expected, _ = colours(20)
    read: list[int] = []

    def counted(index: int) -> bytes:
        read.append(index)
        return some.read(index)

    watched = Pictures(some.place, some.names, some.labels, some.content, counted)

    def make(size: int | None = None, reverse: bool = False, channels: int = 3) -> np.ndarray:
        read.clear()
        order = np.arange(20)[::-1] if reverse else np.arange(20)
        return decoded([(watched, order)], channels=channels, size=size)

    np.testing.assert_array_equal(make(), expected)
    assert set(read) == set(range(20))
    np.testing.assert_array_equal(make(), expected)
    assert read == []
    (path,) = (user_cache() / "decoded").iterdir()
    monkeypatch.setattr(decode, "MAPPED_SHARE", 0.0)
    mapped = make()
    assert read == []
    assert isinstance(mapped, np.memmap)
    path.unlink()
    np.testing.assert_array_equal(mapped, expected)  # a file that is open stays
    assert torch.equal(decode._split(mapped, some.labels).inputs, torch.from_numpy(expected.copy()))
    for other in ({"size": 5}, {"reverse": True}, {"channels": 1}):
        make(**other)
        assert len(set(read)) == 20
    monkeypatch.setattr(decode, "decoder", lambda: {"pillow": "another"})
    make()
    assert len(set(read)) == 20


@pytest.mark.parametrize("damage", ["byte", "short", "empty", "text", "pickle", "other"])
def test_a_cache_that_was_damaged_is_made_again(damage: str) -> None:
    some, expected, _ = colours(20)
    pool = [(some, np.arange(20))]
    decoded(pool, channels=3, size=None)
    (path,) = (user_cache() / "decoded").iterdir()
    good = path.read_bytes()
    objects, other = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    np.save(other, np.zeros((20, 3), np.uint8))
    contents = {
        "byte": good[:-1] + bytes([good[-1] ^ 1]),
        "short": good[:-1],
        "empty": b"",
        "text": b"no array",
        "pickle": objects.getvalue(),
        "other": other.getvalue(),
    }
    path.write_bytes(contents[damage])
    np.testing.assert_array_equal(decoded(pool, channels=3, size=None), expected)
    assert path.read_bytes() == good


def test_files_that_change_meanwhile_are_noticed() -> None:
    some, _, files = colours(20)
    files["train/c/007.png"] = saved(Image.new("RGB", (3, 2), "white"))
    with pytest.raises(StorageError, match="'here' changed while its pictures were decoded"):
        decoded([(some, np.arange(20))], channels=3, size=None)
    assert list((user_cache() / "decoded").iterdir()) == []


def test_two_that_decode_at_once_leave_one_whole_file() -> None:
    """The second begins and ends while the first is at its tenth picture."""
    some, expected, _ = colours(20)
    order = np.arange(20)
    second: list[np.ndarray] = []

    def interrupted(index: int) -> bytes:
        if index == 10 and not second:
            other = threading.Thread(target=lambda: second.append(decoded([(some, order)], channels=3, size=None)))
            other.start()
            other.join()
        return some.read(index)

    first = Pictures(some.place, some.names, some.labels, some.content, interrupted)
    np.testing.assert_array_equal(decoded([(first, order)], channels=3, size=None), expected)
    np.testing.assert_array_equal(second[0], expected)
    assert len(list((user_cache() / "decoded").iterdir())) == 1


def test_a_disk_that_fails_is_one_line_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    some, expected, _ = colours(20)
    cache = user_cache() / "decoded"

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            decoded([(some, np.arange(20))], channels=3, size=None)
    assert list(cache.iterdir()) == []
    old, young = cache / ".old.1.2.tmp", cache / ".young.1.2.tmp"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    np.testing.assert_array_equal(decoded([(some, np.arange(20))], channels=3, size=None), expected)
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(decode, "user_cache", lambda: tmp_path / "file")
    some, _, _ = colours(2)
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        decoded([(some, np.arange(2))], channels=3, size=None)


def test_the_decoder_that_decides_pixels_is_named() -> None:
    import PIL

    assert pictures.decoder()["pillow"] == PIL.__version__
    assert all(pictures.decoder().values())
