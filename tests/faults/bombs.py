"""Data files that unpack to far more than they are: ``python bombs.py FOLDER`` tries to load each of them.

A line of JSON per bomb: its name and what was said; at the end the most memory that the process held, in bytes.
A process of its own, because that number only ever grows.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from netdepth.config import Component
from netdepth.data import load
from netdepth.errors import NetdepthError

Bomb = tuple[str, Callable[[], object]]


def zeros(count: int, head: bytes = b"", wbits: int = 31) -> bytes:
    """``head`` and about ``count`` zeros, compressed (gzip, or zlib with 15) in the time that a few megabytes take."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (count >> 24)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, data: bytes, *more: bytes) -> bytes:
    """A PNG of whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs(root: Path) -> Iterator[Bomb]:
    """Each is put where its data set is looked for when it is that one's turn."""
    zipped = put(root / "mnist" / "train-images-idx3-ubyte.gz", zeros(4 << 30, b"\0\0\x08\x03"))
    yield "gzip: a header, then 4 GB of zeros", lambda: load(Component("mnist"), data_dir=root)
    zipped.unlink()
    path = put(root / "mnist" / "train-images-idx3-ubyte", b"\0\0\x08\x03")
    os.truncate(path, 1 << 40)
    yield "IDX: a file with a hole of a terabyte", lambda: load(Component("mnist"), data_dir=root)
    put(root / "cifar10" / "cifar-10-binary.tar.gz", zeros(4 << 30))
    yield "tar: 4 GB of zeros", lambda: load(Component("cifar10"), data_dir=root)
    yield from picture_bombs(root)


def picture_bombs(root: Path) -> Iterator[Bomb]:
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    text = chunk(b"zTXt", b"Comment\0\0" + zeros(1 << 30, wbits=15))
    profile = chunk(b"iCCP", b"x\0\0" + zeros(1 << 30, wbits=15))
    side, row = 7071, zlib.compress(bytes(7071 * (4 * 7071 + 1)), 1)
    for title, data in (
        ("65,535 × 65,535 pixels announced", png(65_535, 65_535, 8, 2, b"")),
        ("2,147,483,647 × 1 announced", png(2**31 - 1, 1, 8, 2, b"")),
        ("9,000 × 9,000 pixels of one bit", png(9_000, 9_000, 1, 0, zeros(1 << 24, wbits=15))),
        ("pixels that go on for a gigabyte (a picture)", png(4, 4, 8, 0, zeros(1 << 30, wbits=15))),
        ("a comment of a gigabyte", png(4, 4, 8, 0, zlib.compress(bytes(20)), text)),
        ("a profile of a gigabyte", png(4, 4, 8, 0, zlib.compress(bytes(20)), profile)),
        ("50 million transparent pixels, to be turned (a picture)",
         png(side, side, 8, 6, row, chunk(b"eXIf", turned[6:]))),
    ):  # fmt: skip
        for name in ("ant", "bee"):
            put(root / "pictures" / "train" / name / "0.png", data)
        settings = {"path": str(root / "pictures"), "size": 8}
        yield f"picture: {title}", lambda settings=settings: load(Component("image-folder", settings), data_dir=None)
    path = put(root / "pictures" / "train" / "ant" / "0.png", b"\x89PNG\r\n\x1a\n")
    os.truncate(path, 1 << 40)
    yield "picture: a file with a hole of a terabyte", lambda: load(Component("image-folder", settings), data_dir=None)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def main(folder: str) -> None:
    Image.new("L", (1, 1))  # Pillow's own start belongs to no bomb
    for name, attempt in bombs(Path(folder) / "data"):
        try:
            attempt()
            said = "used: "
        except NetdepthError as error:
            said = str(error)
        print(json.dumps([name, said]), flush=True)
    print(json.dumps(["peak", most_memory()]))


def most_memory() -> int:
    """The most bytes that this program held. On Linux what `getrusage` says has in it what began this process."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(*sys.argv[1:])
