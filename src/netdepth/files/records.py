"""Records as JSON: with a schema number, and with null and a flag for NaN and infinities."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA
from netdepth.errors import BadInput, StorageError

__all__ = ["jsonable", "read_json", "restored"]


def jsonable(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with NaN and infinities as null, named with their kind under ``nonfinite``."""
    nonfinite: dict[str, str] = {}

    def clean(value: Any, path: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            nonfinite[path] = str(value)
            return None
        if isinstance(value, Mapping):
            return {k: clean(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v, f"{path}[{i}]") for i, v in enumerate(value)]
        return value

    cleaned = {key: clean(value, key) for key, value in record.items() if key != "nonfinite"}
    return {**cleaned, "nonfinite": {**record.get("nonfinite", {}), **nonfinite}}


def restored(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a file with NaN and infinities again, the inverse of `jsonable`; its flags and schema are gone."""
    nonfinite = record.get("nonfinite", {})

    def value(item: Any, path: str) -> Any:
        if item is None and path in nonfinite:
            return float(nonfinite[path])
        if isinstance(item, Mapping):
            return {k: value(v, f"{path}.{k}" if path else str(k)) for k, v in item.items()}
        if isinstance(item, list):
            return [value(v, f"{path}[{i}]") for i, v in enumerate(item)]
        return item

    return {key: value(item, key) for key, item in record.items() if key not in ("nonfinite", "schema")}


def read_json(path: Path, remedy: str) -> dict[str, Any] | None:
    """The parsed file, or None where there is none; ``remedy`` says what to do about a damaged one.

    Raises:
        BadInput: it is not JSON, or of another schema. StorageError: the disk does not give it.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON ({error}); {remedy}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else None
        raise BadInput(f"{path} has schema {found!r}; this netdepth reads schema {SCHEMA}")
    return value
