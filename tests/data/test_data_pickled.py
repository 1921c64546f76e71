"""The reader of pickled batches: it agrees with the standard library on what it reads, and executes nothing."""

from __future__ import annotations

import copyreg
import pickle
import random
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cifar_archives import batch_dictionary, batches, python2_pickle
from support.hostile_pickles import hostile_pickles

from netdepth.data import pickled
from netdepth.data.pickled import read_pickled
from netdepth.errors import BadInput

BATCH = batch_dictionary(batches("cifar100")["train"])
GOOD = python2_pickle(BATCH)


def refused(data: bytes) -> str:
    """The line that refuses ``data``."""
    with pytest.raises(BadInput) as caught:
        read_pickled(data)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


def plain_unpickled(data: bytes) -> Any:
    """What the standard library makes of a pickle: the reference, which executes whatever it says."""
    return pickle.loads(data, encoding="latin1")


def as_text(value: Any) -> Any:
    """Byte strings as the standard library gives them with encoding latin1."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return [as_text(item) for item in value] if isinstance(value, list) else value


def equal(ours: dict[str, Any], reference: dict[str, Any]) -> bool:
    """Whether two dictionaries hold the same, arrays included."""
    return ours.keys() == reference.keys() and all(
        np.array_equal(value, reference[key]) and value.dtype == reference[key].dtype
        if isinstance(value, np.ndarray)
        else as_text(value) == reference[key]
        for key, value in ours.items()
    )


# --- what is read ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*align.*")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_batch_is_what_the_standard_library_makes_of_it(name: str) -> None:
    for key, batch in batches(name).items():
        data = python2_pickle(batch_dictionary(batch, key))
        assert data.startswith(b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U")  # as the official files begin
        assert equal(read_pickled(data), plain_unpickled(data))
        assert np.array_equal(read_pickled(data)["data"], batch.images)


@pytest.mark.filterwarnings("ignore:.*align.*")
def test_every_kind_of_value_there_is() -> None:
    value = {
        "numbers": [0, 255, 256, 65535, 65536, 2**31 - 1, -1, -(2**31), True, False],
        "short": "",
        "long": "é" * 300,
        "many": list(range(2500)),
        "more": {"within": ["it"]},
        "by column": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
    }
    assert equal(read_pickled(python2_pickle(value)), plain_unpickled(python2_pickle(value)))
    wide = (
        b"}(U\x01aNU\x01b\x8a\x03\x00\x00\x01U\x01cI01\nU\x01dI-5\nU\x01eX\x02\x00\x00\x00hiU\x01f)U\x01g(K\x01K\x02t"
    )
    wide += b"U\x01h]K\x01aU\x01i(K\x05\x85tu."
    reference = {"a": None, "b": 65536, "c": True, "d": -5, "e": "hi", "f": (), "g": (1, 2), "h": [1], "i": ((5,),)}
    assert plain_unpickled(wide) == reference
    assert {key: as_text(item) for key, item in read_pickled(wide).items()} == reference
    assert read_pickled(b"}U\x01aK\x07q\x09sU\x01bh\x09s.") == {"a": 7, "b": 7}


# --- what is hostile ---------------------------------------------------------------------------


class _Extended:
    """Pickles through ``__reduce_ex__`` and copyreg, with state and items."""

    def __reduce_ex__(self, protocol: int) -> Any:
        return copyreg.__newobj__, (_Extended,), {"a": 1}


@pytest.mark.parametrize("kind", sorted(hostile_pickles(Path("x"))))
def test_a_hostile_pickle_executes_nothing(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data = hostile_pickles(marker)[kind]
    refused(data)
    assert not marker.exists()
    plain_unpickled(data)
    assert marker.exists(), "the standard library would have executed it"


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_pickle.py").write_text("value = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    data = b"cimported_by_a_pickle\nvalue\n."
    assert refused(data) == "it asks for 'imported_by_a_pickle.value'; only an array of bytes is read"
    assert "imported_by_a_pickle" not in sys.modules
    assert plain_unpickled(data) == 1
    assert "imported_by_a_pickle" in sys.modules


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
BYTES = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
READY = ARRAY + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(_Extended(), 2), "asks for 'test_data_pickled._Extended'"),
        (pickle.dumps(_Extended(), 4), "instruction b'\\\\x95'"),
        (b"c__main__\nx\n.", "asks for '__main__.x'"),
        (b"ccopy_reg\n_reconstructor\n.", "asks for 'copy_reg._reconstructor'"),
        (b"cnumpy\nload\n.", "asks for 'numpy.load'"),
        (b"cnumpy.core.multiarray\nscalar\n.", "asks for 'numpy.core.multiarray.scalar'"),
        (b"cnumpy\nndarray.__reduce__\n.", "asks for 'numpy.ndarray.__reduce__'"),
        (b"Pnumber\n.", "instruction b'P'"),
        (b"K\x01Q.", "instruction b'Q'"),
        (b"\x82\x01.", "instruction b'\\\\x82'"),
        (b"\x83\x01\x00.", "instruction b'\\\\x83'"),
        (b"\x84\x01\x00\x00\x00.", "instruction b'\\\\x84'"),
        (b"U\x02osU\x06system\x93.", "instruction b'\\\\x93'"),
        (b"cnumpy\nndarray\n)\x81.", "instruction b'\\\\x81'"),
        (b"\x97.", "instruction b'\\\\x97'"),
        (b"cnumpy\nndarray\nK\x09\x85R.", "calls 'numpy.ndarray' with other arguments"),
        (b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", "calls 'numpy.dtype' with other arguments"),
        (ARRAY + b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87R.", "_reconstruct' with other arguments"),
        (b"K\x01)R.", "calls a int with"),
        (READY + b"}b.", "something else than version, shape, type, order and bytes"),
        (READY + b"(K\x01K\x02K\x02\x86" + BYTES + b"K\x00U\x05abcdetb.", "5 bytes, which are not rows"),
        (READY + b"(K\x01K\x04\x85" + BYTES + b"K\x00U\x04abcdtb.", "4 bytes, which are not rows"),
        (READY + b"(K\x01J\xfe\xff\xff\xffJ\xfe\xff\xff\xff\x86" + BYTES + b"K\x00U\x04abcdtb.", "not rows"),
        (READY + b"(K\x01K\x02K\x02\x86U\x02u1K\x00U\x04abcdtb.", "something else than bytes"),
        (READY + b"(K\x01K\x02K\x02\x86" + BYTES + b"U\x00U\x04abcdtb.", "something else than bytes"),
        (b"}U\x01a" + READY + b"s.", "announces an array and does not fill it"),
        (b"}}b.", "adds to a dict as if it were a _Array"),
        (b"}K\x01K\x02s.", "a int for a key"),
        (b"}K\x01a.", "adds to a dict as if it were a list"),
        (b"](K\x01K\x02u.", "adds to a list as if it were a dict"),
        (b"}(U\x01au.", "malformed"),
        (b"}U\x01aIx\ns.", "malformed"),
        (b"K\x05.", "holds a int, not a dictionary"),
        (b".", "takes from an empty stack"),
        (b"t.", "takes from an empty stack"),
        (b"R.", "takes from an empty stack"),
        (b"h\x05.", "fetches 5 at 1, which it never stored"),
        (b"", "truncated"),
        (b"}", "truncated"),
        (b"U\x09abc", "truncated"),
        (b"T\xff\xff\xff\xffabc", "truncated"),
        (b"c" + b"a" * 200 + b"\nb\n.", "a line without end"),
        (b"cunended", "a line without end"),
        (b"\xff.", "instruction b'\\\\xff'"),
    ],
)  # fmt: skip
def test_what_has_no_place_in_a_batch_is_refused(data: bytes, reason: str) -> None:
    assert reason.replace("\\\\", "\\") in refused(data)


def test_every_other_instruction_of_the_language_is_refused() -> None:
    """All that the standard library knows, and all that it does not."""
    known = set(pickled.VALUES) | set(pickled.ACTIONS) | {pickle.STOP}
    others = [bytes([code]) for code in range(256) if bytes([code]) not in known]
    assert len(others) > 200
    for code in others:
        assert "has no place in a batch of images" in refused(b"}" + code + bytes(9) + b".")


# --- what is too much --------------------------------------------------------------------------

BOMBS = {
    "a memo index of two billion": b"}r\xff\xff\xff\x7f" + b"r\xff\xff\xff\xff" + b"0.",
    "a string of two gigabytes": b"}U\x01aT\xff\xff\xff\x7fab",
    "a unicode string of four gigabytes": b"}U\x01aX\xff\xff\xff\xffab",
    "an array of two gigabytes": READY + b"(K\x01J\xff\xff\xff\x7fK\x01\x86" + BYTES + b"K\x00U\x04abcdtb.",
    "lists of lists, doubled forty times": b"]q\x00"
    + b"".join(b"]q\x01h\x00ah\x00ah\x01q\x00" for _ in range(40))
    + b".",
    "a key that takes forever to hash": b"}K\x01\x85" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "a comparison that takes forever": b"cnumpy\ndtype\n" + b"K\x01" + b"q\x00h\x00\x86" * 60 + b"R.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_nothing(kind: str) -> None:
    started = time.monotonic()
    tracemalloc.start()
    try:
        refused(BOMBS[kind])
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 2


def test_a_program_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "STEPS", 5000)
    for step in (b"}", b"(", b"N", b"K\x01\x85", b"]a"):
        assert "more than the 5000 instructions expected" in refused(b"]" + step * 10_000)


def test_nesting_is_no_recursion() -> None:
    """Twenty thousand lists within one another are made, refused and freed."""
    assert "holds a list" in refused(b"]" * 20_000 + b"a" * 19_999 + b".")


def test_the_longest_official_batch_stays_far_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-100 has 50,000 pictures in one batch: two labels each, and a name that is stored."""
    monkeypatch.setattr(pickled, "STEPS", pickled.STEPS // 200)
    count = 250
    value = {"fine_labels": [1] * count, "coarse_labels": [1] * count, "filenames": ["name"] * count}
    assert len(read_pickled(python2_pickle(value))["filenames"]) == count == 50_000 // 200


def test_2000_damaged_batches_give_a_dictionary_or_one_line() -> None:
    rng, outcomes = random.Random(5), Counter()
    small = {"labels": [1, 2, 300], "data": np.arange(12, dtype=np.uint8).reshape(3, 4), "filenames": ["a", "b"]}
    good = python2_pickle(small)
    for case in range(2000):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(changed))
            changed[at] = rng.choice((rng.randrange(256), good[rng.randrange(len(good))]))
        if case % 4 == 0:
            del changed[rng.randrange(len(changed)) :]
        line = ""
        try:
            found = read_pickled(bytes(changed))
        except BadInput as error:
            line, found = str(error), {}
        assert line.isprintable(), f"case {case}"
        assert all(type(key) is str for key in found), f"case {case}"
        outcomes["refused" if line else "read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 200, outcomes
