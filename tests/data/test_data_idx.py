"""The IDX and gzip readers by themselves: what each refuses, and why."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from test_data_fuzz import idx

from netdepth.data.idx import gunzip, parse_images, parse_labels, read_content
from netdepth.errors import BadInput


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "magic number is 0x,"),
        (b"\0\0\x08", "magic number is 0x000008,"),
        (idx(np.zeros((2, 2, 2)), type_code=9), "magic number is 0x00000903"),
        (idx(np.zeros(3)), r"shape \[3\] has 1 dimensions, not 3"),
        (idx(np.zeros((2, 2, 2)))[:10], "header ends after 10 of 16 bytes"),
        (idx(np.zeros((2, 2, 2)))[:-1], "asks for 24 bytes, it has 23"),
        (idx(np.zeros((2, 2, 2))) + b"\n", "asks for 24 bytes, it has 25"),
        (idx(np.zeros((2, 0, 2))), "empty dimension"),
        (b"\0\0\x08\x03" + b"\xff" * 12, f"asks for {(2**32 - 1) ** 3 + 16} bytes, it has 16"),
    ],
)
def test_images_that_are_none(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        parse_images(data)


def test_labels_that_are_none() -> None:
    with pytest.raises(BadInput, match="holds 3 labels for 4 images"):
        parse_labels(idx(np.zeros(3)), 4, 10)
    with pytest.raises(BadInput, match="holds label 10; labels are 0 to 9"):
        parse_labels(idx(np.array([0, 10])), 2, 10)
    with pytest.raises(BadInput, match=r"shape \[2, 2\] has 2 dimensions, not 1"):
        parse_labels(idx(np.zeros((2, 2))), 2, 10)


def test_what_is_right_is_read_as_it_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    images = parse_images(idx(pixels))
    assert images.shape == (3, 1, 4, 5)
    assert np.array_equal(images[:, 0], pixels)
    labels = parse_labels(idx(np.array([2, 0, 1])), 3, 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (gzip.compress(b"abc", mtime=0)[:-1], "truncated after 3 of 3 bytes"),
        (gzip.compress(b"abc", mtime=0)[:12], "truncated after"),
        (gzip.compress(b"abc", mtime=0)[:-8] + bytes(8), "corrupted"),
        (gzip.compress(b"abc", mtime=0) + b"x", "1 bytes after the end"),
        (gzip.compress(b"ab", mtime=0) + gzip.compress(b"c", mtime=0), "after the end"),
        (gzip.compress(b"abcd", mtime=0), "holds more than the 3 bytes"),
        (b"\x1f\x8b", "truncated after 0 of 3"),
        (b"plain", "corrupted"),
    ],
)
def test_gzip_streams_that_are_damaged(raw: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        gunzip(raw, 3)


def test_content_at_its_limits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"ab", b"abc", gzip.compress(b"abc", mtime=0), gzip.compress(b"", mtime=0)):
        path.write_bytes(data)
        assert read_content(path, 3) == (gzip.decompress(data) if data[:1] == b"\x1f" else data)
    path.write_bytes(b"abcd")
    with pytest.raises(BadInput, match="more than the 3 bytes"):
        read_content(path, 3)
