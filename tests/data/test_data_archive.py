"""Tar archives: what is safe comes out as it went in, everything else is refused in one line that names the entry."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from support.cifar_archives import entry, packed, tar

from netdepth.data import archive
from netdepth.data.archive import members
from netdepth.errors import BadInput, StorageError

FILES = {"a/one.bin": b"1" * 700, "a/b/two.bin": bytes(range(256)) * 5, "a/empty": b"", "a/" + "x" * 200: b"long name"}
FOLDER = entry("a", type=tarfile.DIRTYPE)
GOOD = tar([FOLDER, *(entry(name, content) for name, content in FILES.items())])
LIMIT = 100_000


def read(data: bytes, limit: int = LIMIT) -> list[tuple[str, bytes]]:
    return list(members(data, limit=limit))


def refused(data: bytes, limit: int = LIMIT) -> str:
    """The line that refuses ``data``."""
    with pytest.raises(BadInput) as caught:
        read(data, limit)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_come_in_order_as_the_library_reads_them(format: int, tmp_path: Path) -> None:
    names = [name for name in FILES if format != tarfile.USTAR_FORMAT or len(name) < 100]
    plain = tar([FOLDER, *(entry(name, FILES[name]) for name in names)], format)
    path = tmp_path / "files.tar.gz"
    path.write_bytes(packed(plain))
    with tarfile.open(path) as reference:
        expected = [(m.name, reference.extractfile(m).read()) for m in reference.getmembers() if m.isfile()]
    assert read(plain) == read(packed(plain)) == list(members(path, limit=LIMIT)) == expected
    assert [name for name, _ in expected] == names
    assert os.listdir(tmp_path) == ["files.tar.gz"]


def test_only_what_is_wanted_is_read_and_the_rest_is_still_checked() -> None:
    assert [name for name, _ in members(GOOD, limit=LIMIT, wanted=lambda name: name.endswith(".bin"))] == [
        "a/one.bin",
        "a/b/two.bin",
    ]
    with pytest.raises(BadInput, match=r"its entry '\.\./x' leads out"):
        list(members(tar([entry("../x")]), limit=LIMIT, wanted=lambda name: False))


def test_entries_are_streamed() -> None:
    """The first file is there before the archive is known to be whole."""
    found = members(packed(GOOD)[:-20], limit=LIMIT)
    assert next(found) == ("a/one.bin", FILES["a/one.bin"])
    with pytest.raises(BadInput, match="truncated"):
        list(found)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../../up", "a/..", "..", "C:\\x", "c:x", "\\x", "a\\..\\..\\x", "//host/x"]
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    assert f"its entry {name!r} leads out of the archive's folder" in refused(tar([entry("fine", b"x"), entry(name)]))


def test_dots_and_odd_characters_in_a_name_are_fine() -> None:
    names = ["./here", "a/.hidden", "a/..two", "a/b..c", "a/new\nline", "a/ü\x07"]
    assert [name for name, _ in read(tar([entry(name) for name in names]))] == names


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "of an unknown kind"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_what_is_no_plain_file_is_refused(kind: bytes, words: str) -> None:
    line = refused(tar([entry("fine", b"x"), entry("odd\n", type=kind, linkname="fine"), entry("later")]))
    assert line == f"its entry {'odd' + chr(10)!r} is {words}, not a plain file or folder"


def test_a_sparse_file_in_a_pax_header_is_refused() -> None:
    """A hole of a terabyte costs an archive nothing and its reader everything."""
    info, _ = entry("hole", b"", pax_headers={"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,0"})
    assert "its entry 'hole' is a sparse file" in refused(tar([(info, b"")], tarfile.PAX_FORMAT))


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ENTRIES", 3)
    assert len(read(tar([entry(str(i)) for i in range(3)]))) == 3
    line = refused(tar([entry(str(i)) for i in range(4)]))
    assert line == "it has more than 3 entries, of which '3' is one too many"


# --- size --------------------------------------------------------------------------------------


def test_the_limit_is_that_of_the_whole_archive() -> None:
    assert len(read(packed(GOOD), len(GOOD))) == len(FILES)
    for data in (GOOD, packed(GOOD)):
        assert f"unpacks to more than the {len(GOOD) - 1} bytes expected" in refused(data, len(GOOD) - 1)


def announcing(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One entry that announces ``size`` bytes and brings nothing."""
    return entry("big", type=kind, size=size)[0].tobuf(tarfile.GNU_FORMAT)


BOMBS = {
    "a file": announcing(8_000_000) + bytes(8_000_000),
    "a long name": announcing(8_000_000, tarfile.GNUTYPE_LONGNAME) + b"n" * 8_000_000,
    "a pax header": announcing(8_000_000, tarfile.XHDTYPE) + b"n" * 8_000_000,
    "zeros at the end": GOOD + bytes(8_000_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_no_more_than_what_was_expected(kind: str) -> None:
    data = gzip.compress(BOMBS[kind], 1)
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        after = {"a file": "'big'", "zeros at the end": repr(list(FILES)[-1])}.get(kind, "the beginning")
        assert refused(data) == f"it unpacks to more than the {LIMIT} bytes expected (after {after})"
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [2**63, 2**70, -1, -512, -(2**40)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_sizes_that_cannot_be(size: int, kind: bytes) -> None:
    refused(tar([entry("fine", b"x")])[:1024] + announcing(size, kind) + bytes(4096))


def test_headers_within_headers_without_end_are_refused() -> None:
    """tarfile reads the header after a long name by calling itself."""
    one = announcing(1, tarfile.GNUTYPE_LONGNAME) + b"n".ljust(512, b"\0")
    refused(one * 2000 + GOOD, 10**7)


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 513, 1024, 1536, 1900, 2048, 2100, 2560, 3000, 4096, 5000])
def test_an_archive_cut_anywhere_before_its_end_is_refused(cut: int) -> None:
    """Also between two entries, where the library takes it for whole."""
    refused(GOOD[:cut])
    refused(packed(GOOD[:cut]))


def test_every_cut_of_the_compressed_archive_is_refused() -> None:
    data = packed(GOOD)
    for cut in range(0, len(data), 7):
        refused(data[:cut])


def test_damage_to_a_header_is_no_end() -> None:
    """The library takes the first header it cannot read for the end of the archive."""
    second = 512 + 512 + 1024  # after the folder, and the first file with its padding
    damaged = GOOD[: second + 3] + b"?" + GOOD[second + 4 :]
    with tarfile.open(fileobj=io.BytesIO(damaged)) as reference:
        assert len(reference.getmembers()) == 2
    assert refused(damaged) == "it is truncated or corrupted (after 'a/one.bin')"


def test_other_bytes_after_the_end_are_refused() -> None:
    assert "bytes after the end of its gzip stream" in refused(packed(GOOD) + b"x")
    assert "bytes after the end of its gzip stream" in refused(packed(GOOD) * 2)
    assert "truncated or corrupted" in refused(GOOD + GOOD)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"<html>" * 200, bytes(512), bytes(10240), gzip.compress(b"", mtime=0), b"\x1f\x8b"]
)
def test_what_is_no_archive(data: bytes) -> None:
    if data == bytes(10240) or data == bytes(512):  # an archive without entries
        assert read(data) == []
    else:
        refused(data)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nowhere"):
        list(members(tmp_path / "nowhere", limit=LIMIT))


def test_600_damaged_archives_give_files_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, outcomes = random.Random(3), Counter()
    pax = tar([FOLDER, *(entry(n, c, pax_headers={"comment": "ü" * 9}) for n, c in FILES.items())], tarfile.PAX_FORMAT)
    for case in range(600):
        changed = bytearray(rng.choice((GOOD, pax)))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(changed) // 512) * 512 + rng.randrange(rng.choice((160, 265, 512)))
            changed[at] = rng.choice((rng.randrange(256), 0x80, 0xFF, ord("7"), 0))
        for start in range(0, len(changed), 512):  # in half of the cases the headers' sums are right again
            if case % 2 and changed[start + 257 : start + 262] == b"ustar":
                changed[start + 148 : start + 156] = b" " * 8
                changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + 512])
        data = bytes(changed) if case % 3 else packed(bytes(changed))
        line = ""
        try:
            found = read(data)
        except BadInput as error:
            line, found = str(error), []
        assert line.isprintable(), f"case {case}"
        assert len(found) <= len(FILES), f"case {case}"
        outcomes["refused" if line else "read"] += 1
    assert os.listdir(tmp_path) == []
    assert min(outcomes["refused"], outcomes["read"]) > 60, outcomes
