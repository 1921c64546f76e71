"""A picture file as a network takes it: by the rules of ``image-folder``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netdepth.errors import BadInput
from netdepth.files.pictures import decode_picture, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 48, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray = PIXELS, **settings: object) -> Path:
    Image.fromarray(pixels).save(path, **settings)
    return path


def test_a_picture_of_the_right_size_is_as_it_is(tmp_path: Path) -> None:
    found, note, _ = read_picture(saved(tmp_path / "a.png"), (3, 30, 48))
    assert note is None
    assert np.array_equal(found.transpose(1, 2, 0), PIXELS)


def test_a_square_is_what_image_folder_would_make_of_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    for channels in (1, 3):
        found, note, _ = read_picture(path, (channels, 16, 16))
        assert note == "its middle, resized from 48x30 to 16x16"
        assert np.array_equal(found, decode_picture(path.read_bytes(), channels=channels, size=16))


@pytest.mark.parametrize(
    ("shape", "box", "note"),
    [
        ((15, 30), (0, 3, 48, 27), "its middle, resized from 48x30 to 30x15"),
        ((30, 10), (19, 0, 29, 30), "its middle, resized from 48x30 to 10x30"),
        ((10, 16), (0, 0, 48, 30), "resized from 48x30 to 16x10"),
    ],
)
def test_a_rectangle_is_cut_from_the_middle(
    tmp_path: Path, shape: tuple[int, int], box: tuple[int, ...], note: str
) -> None:
    found, told, _ = read_picture(saved(tmp_path / "a.png"), (3, *shape))
    cut = Image.fromarray(PIXELS).crop(box).resize(shape[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(cut))
    assert told == note


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("hello")
    for name, words in (("none.png", "no picture"), ("pipe.png", "no picture file"), ("text.png", "none of JPEG")):
        with pytest.raises(BadInput, match=words) as caught:
            read_picture(tmp_path / name, (3, 8, 8))
        assert str(tmp_path / name) in str(caught.value)


def test_twelve_bits_in_a_file_of_sixteen_are_warned_of(tmp_path):
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels, _, warning = read_picture(tmp_path / "a.png", (1, 8, 8))
    assert pixels.max() == 15
    assert warning is not None
    assert warning.startswith("its 16-bit values end below 4,096, so that 16 of 256 grey levels are left; multiply")
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert read_picture(tmp_path / "a.tiff", (1, 8, 8)).warning == warning
    Image.fromarray(values * 16).save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png", (1, 8, 8)).warning is None
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "c.png")  # dark, but nothing is lost
    assert read_picture(tmp_path / "c.png", (1, 8, 8)).warning is None
