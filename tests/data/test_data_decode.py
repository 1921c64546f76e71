"""Pictures to pixels: one file at a time, many in processes, and the cache of what was decoded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netdepth.data import decode, pictures
from netdepth.data.decode import Pictures, content_digest, decoded
from netdepth.data.fetch import user_cache
from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.files.pictures import decode_picture, pillow_rules

RANDOM = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
"""A picture four pixels wide and six high."""


def saved(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def pixels(content: bytes, channels: int = 3, size: int | None = None) -> np.ndarray:
    """What `decode_picture` makes of it, as [H, W, C]."""
    with pillow_rules():
        made = decode_picture(content, channels=channels, size=size)
    assert made.dtype == np.uint8
    return made.transpose(1, 2, 0)


def made_png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write; ``raw`` holds the rows, each after a filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- what a picture becomes -------------------------------------------------------------------


def test_colours_and_greys() -> None:
    colour = Image.fromarray(RANDOM)
    np.testing.assert_array_equal(pixels(saved(colour)), RANDOM)
    luma = (RANDOM.astype(np.int64) @ [19595, 38470, 7471] + 0x8000) >> 16  # ITU-R 601-2
    np.testing.assert_array_equal(pixels(saved(colour), channels=1)[..., 0], luma)
    grey = RANDOM[..., 0]
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(grey))), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(grey)), channels=1)[..., 0], grey)
    bits = Image.fromarray(grey > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(pixels(saved(bits), channels=1)[..., 0], np.where(grey > 127, 255, 0))
    palette = Image.fromarray(RANDOM).convert("P", palette=Image.Palette.ADAPTIVE, colors=24)
    assert palette.mode == "P"
    np.testing.assert_array_equal(pixels(saved(palette)), np.asarray(palette.convert("RGB")))


def test_what_is_transparent_lies_over_white() -> None:
    alpha = np.arange(24, dtype=np.uint8).reshape(6, 4, 1) * 11
    rgba = np.concatenate([RANDOM, alpha], axis=2)
    share = alpha / 255
    over_white = RANDOM * share + 255 * (1 - share)
    assert np.abs(pixels(saved(Image.fromarray(rgba))) - over_white).max() <= 1
    la = np.stack([RANDOM[..., 0], alpha[..., 0]], axis=2)
    assert np.abs(pixels(saved(Image.fromarray(la, "LA")), 1)[..., 0] - over_white[..., 0]).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    for transparency in (0, bytes([0, 255])):
        made = pixels(saved(palette, transparency=transparency))
        assert made.tolist() == [[[255, 255, 255], [40, 50, 60]]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels(saved(keyed, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_sixteen_bits_are_read_by_their_high_byte() -> None:
    grey = np.random.default_rng(1).integers(0, 2**16, (6, 4), dtype=np.uint16)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(grey)), channels=1)[..., 0], grey >> 8)
    colour = np.random.default_rng(2).integers(0, 2**16, (6, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    np.testing.assert_array_equal(pixels(made_png(4, 6, 16, 2, rows)), colour >> 8)


def test_cmyk_is_converted() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    made = pixels(saved(red, "JPEG", quality=100))
    assert np.abs(made.astype(int) - [255, 0, 0]).max() <= 3


def test_pictures_are_turned_upright() -> None:
    turned: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }
    for orientation, turn in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        np.testing.assert_array_equal(pixels(saved(Image.fromarray(RANDOM), exif=exif)), turn(RANDOM))
        jpeg = saved(Image.new("RGB", (24, 8)), "JPEG", exif=exif)
        assert pixels(jpeg).shape == ((24, 8, 3) if orientation > 4 else (8, 24, 3))


def test_the_middle_square_is_cut_out_and_resized() -> None:
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(RANDOM)), size=4), RANDOM[1:5])
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(RANDOM[:4])), size=4), RANDOM[:4])
    large = np.random.default_rng(3).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for size in (7, 30, 45):
        square = torch.from_numpy(large[5:35].copy()).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
        made = pixels(saved(Image.fromarray(large)), size=size)
        assert np.abs(made - expected[0].permute(1, 2, 0).numpy()).max() < 1.01  # Pillow rounds in between


def test_what_a_file_holds_decides_not_its_name_and_photographs_with_previews_are_single() -> None:
    jpeg = saved(Image.fromarray(RANDOM), "JPEG")
    np.testing.assert_array_equal(pixels(jpeg), np.asarray(Image.open(io.BytesIO(jpeg))))
    several = saved(Image.new("RGB", (8, 8), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert pixels(several).shape == (8, 8, 3)
    assert pixels(several)[..., 0].min() > 250


def test_the_other_formats_and_the_first_frame_of_a_gif() -> None:
    lzw, lossless = {"compression": "tiff_lzw"}, {"lossless": True}
    for form, settings in (("TIFF", {}), ("TIFF", lzw), ("BMP", {}), ("WEBP", lossless)):
        np.testing.assert_array_equal(pixels(saved(Image.fromarray(RANDOM), form, **settings)), RANDOM)
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(RANDOM), "TIFF", exif=exif)), np.rot90(RANDOM, -1))
    grey = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(grey), "TIFF"))[..., 0], grey >> 8)
    frames = [Image.new("L", (4, 4), value) for value in (200, 10)]
    moving = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(moving)[..., 0], 200)


# --- what is refused --------------------------------------------------------------------------

PNG, JPEG = saved(Image.fromarray(RANDOM)), saved(Image.new("RGB", (64, 64), "red"), "JPEG")
RED = Image.new("RGB", (4, 4), "red")
ANIMATED = saved(Image.new("L", (2, 2)), save_all=True, append_images=[Image.new("L", (2, 2), 9)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"not a picture", "none of JPEG, PNG, TIFF, BMP, WEBP, GIF"),
        (saved(Image.new("L", (2, 2)), "PPM"), "none of JPEG"),
        (saved(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"), "its values run from 0.5 to 0.5"),
        (saved(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), "its values run from 70000 to 70000"),
        (saved(RED, "TIFF", save_all=True, append_images=[RED]), "has several pages"),
        (saved(RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4))]), "it is animated"),
        (PNG[:20], "cannot be decoded"),
        (JPEG[:100], "cannot be decoded"),
        (PNG[:-30], "cannot be decoded"),
        (JPEG[:-200], "cannot be decoded"),
        (PNG[:30] + b"\xff\xff" + PNG[32:], "none of JPEG"),
        (ANIMATED, "it is animated"),
        (made_png(9_000, 9_000, 8, 0, b""), "9000 × 9000 pixels; at most 50,000,000"),
        (made_png(10_000, 10_000, 8, 0, b""), "too many pixels; at most 50,000,000"),
        (made_png(60_000, 60_000, 8, 0, b""), "too many pixels"),
        (made_png(2**31 - 1, 2**31 - 1, 8, 0, b""), "pixels"),
        (made_png(0, 0, 8, 0, b""), "it "),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_one_line(content: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        pixels(content)
    assert "\n" not in str(caught.value)


# --- many, and the cache -----------------------------------------------------------------------


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


def test_processes_decode_what_one_process_does_and_name_all_that_are_refused(
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
        "2 pictures are not acceptable: 'here/train/c/120.png': it is 5 × 7 pixels where others are 3 × 2; "
        "bring all to one size, such as --set dataset.size=2; 'here/train/c/250.png': it is none of JPEG, "
        "PNG, TIFF, BMP, WEBP, GIF, or its beginning is damaged"
    )
    files.update(dict.fromkeys(list(files)[:100], b"broken"))  # the first picture, too
    with pytest.raises(BadInput, match=r"^102 pictures .*'here/train/c/009.png': .*; and 92 more$"):
        decoded([(some, np.arange(300))], channels=3, size=None)
    assert list((user_cache() / "decoded").glob(".*")) == []


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(decode._Process(json.dumps({"channels": 3, "size": None, "shape": (2, 3)}))) as process:
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
    assert torch.equal(pictures._split(mapped, some.labels).inputs, torch.from_numpy(expected.copy()))
    for other in ({"size": 5}, {"reverse": True}, {"channels": 1}):
        make(**other)
        assert len(set(read)) == 20
    monkeypatch.setattr(decode, "decoder", lambda: {"pillow": "another"})
    make()
    assert len(set(read)) == 20


@pytest.mark.parametrize("damage", ["byte", "short", "text", "pickle", "other"])
def test_a_cache_that_was_damaged_is_made_again(damage: str) -> None:
    some, expected, _ = colours(20)
    pool = [(some, np.arange(20))]
    decoded(pool, channels=3, size=None)
    (path,) = (user_cache() / "decoded").iterdir()
    good = path.read_bytes()
    if damage in ("pickle", "other"):
        with open(path, "wb") as handle:
            np.save(handle, np.array([{}]) if damage == "pickle" else np.zeros((20, 3), np.uint8))
    else:
        bad = {"byte": good[:-1] + bytes([good[-1] ^ 1]), "short": good[:-1], "text": b"no array"}
        path.write_bytes(bad[damage])
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


def test_a_cache_that_cannot_be_written_costs_the_cache_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some, expected, _ = colours(20)
    cache = user_cache() / "decoded"
    (tmp_path / "file").touch()
    with monkeypatch.context() as broken:
        broken.setattr(decode, "user_cache", lambda: tmp_path / "file")
        np.testing.assert_array_equal(decoded([(some, np.arange(20))], channels=3, size=None), expected)
    assert re.search(r"^note: cannot write .*file.* kept in memory, for this run alone$", capsys.readouterr().err)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        np.testing.assert_array_equal(decoded([(some, np.arange(20))], channels=3, size=None), expected)
    assert "No space left" in capsys.readouterr().err
    assert list(cache.iterdir()) == []
    old, young = cache / ".old.1.2.tmp", cache / ".young.1.2.tmp"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    np.testing.assert_array_equal(decoded([(some, np.arange(20))], channels=3, size=None), expected)
    assert not old.exists()
    assert young.exists()
