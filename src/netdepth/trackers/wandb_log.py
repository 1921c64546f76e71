"""Read a ``.wandb`` file back: 7 bytes of header, then records in LevelDB's log format, each a protobuf.

The client reports no error when such a file could not be written (a full disk), so the tracker looks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from netdepth.errors import StorageError

__all__ = ["read_log", "require_complete"]

HEADER = 7
BLOCK = 32768
CHUNK = struct.Struct("<IHB")
FULL, LAST = 1, 4


def read_log(path: Path) -> Iterator[Any]:
    """Every ``wandb_internal_pb2.Record`` of the file.

    Raises:
        StorageError: the file is no ``.wandb`` file, or cut off or damaged within a record.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    position, parts = HEADER, b""
    if data[:4] != b":W&B":
        raise StorageError(f"{path} is not a .wandb file or is empty")
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < CHUNK.size:  # the end of a block that is too short for a chunk header is padding
            position += left
            continue
        if position + CHUNK.size > len(data):
            raise StorageError(f"{path} is cut off at byte {len(data)}")
        _, length, kind = CHUNK.unpack_from(data, position)
        position += CHUNK.size
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            message = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            try:
                message.ParseFromString(parts)
            except DecodeError:
                raise StorageError(f"{path} is damaged before byte {position}") from None
            parts = b""
            yield message


def require_complete(path: Path, steps: Iterable[int]) -> None:
    """Check that the file holds a history row for every step in ``steps`` and the run's end.

    Raises:
        StorageError: it does not.
    """
    found: set[int] = set()
    ended = False
    for message in read_log(path):
        kind = message.WhichOneof("record_type")
        ended |= kind == "exit"
        if kind == "history":
            found |= {json.loads(i.value_json) for i in message.history.item if "_step" in (i.key, *i.nested_key)}
    missing = len(set(steps) - found)
    if missing or not ended:
        raise StorageError(f"{path} is incomplete ({missing} evaluations missing): disk full or I/O error")
