"""The process that reads a pickle of weights: ``python -m netdepth.tools.convert.reader TARGET SIZE NAME < FILE``.

Except for the limits that `main` sets, everything here works without a process of its own, so tests can call it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from netdepth import __version__
from netdepth.config import Json, from_json
from netdepth.errors import BadInput, NetdepthError, StorageError
from netdepth.text import thousands
from netdepth.tools.convert.cifar import Assumed, mapped
from netdepth.training.published import SUFFIX, Fit, recognise

__all__ = ["limit_memory", "main", "rewrite"]

GROWTH, SLACK_BYTES = 4, 2**30
"""Memory for reading: this many times the size of the file, plus this much."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights")
"""Entries in which training scripts keep the weights, beside the optimizer and the epoch; the first that is there. A
file without any of them may have one other entry that holds tensors."""
NESTED = 4
"""Entries around the weights, one in the other, at most."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""`DataParallel`, `torch.compile` and training scripts put these before every name."""
SHOWN = 20
DEFAULT = Assumed()


def main(target: str, size: str, name: str, assumed: str = "{}") -> None:
    """Rewrite standard input to ``target``; print the report, or the error, as one JSON text.

    ``assumed`` is an `Assumed` as JSON.
    """
    limit_memory(GROWTH * int(size) + SLACK_BYTES)
    try:
        with open(0, "rb", closefd=False) as handle:
            report = rewrite(handle, Path(target), name, from_json(Assumed, json.loads(assumed), "convert"))
    except NetdepthError as error:
        report = {"error": str(error), "code": error.exit_code}
    print(json.dumps(report))


def limit_memory(count: int) -> None:
    """Allow this process ``count`` bytes of address space more than it has now (only Linux counts them)."""
    if sys.platform != "linux":
        return
    import resource

    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + count
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        limit = min(limit, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def rewrite(handle: BufferedReader, target: Path, name: str, assumed: Assumed = DEFAULT) -> Mapping[str, Json]:
    """Read the weights in ``handle`` (a file called ``name``) and write them to ``target`` as safetensors.

    Returns:
        The fields of `Conversion`, without the paths.

    Raises:
        BadInput: a message to stand after the file's name.
        StorageError: ``target`` cannot be written.
    """
    sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    found, unwrapped, beside = _unwrap(_unsafe(handle) if name.endswith(SUFFIX) else _unpickle(handle))
    tensors, dropped = _sort_out(found, GROWTH * size)
    dropped = beside + dropped
    stripped = []
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        stripped.append(prefix)
        tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    tensors, fit, known, also = _fitted(tensors, assumed)
    stripped += also
    tensors, shared = _separate(tensors)
    source = name.encode(errors="replace").decode()
    metadata = {"source": source, "source_sha256": sha256, "made_by": f"netdepth {__version__}", **known}
    try:
        safetensors.torch.save_file(tensors, target, {"format": "pt", **metadata})
    except Exception as error:  # a file may hold any names, shapes and types
        kind = StorageError if "os error" in str(error) else BadInput
        raise kind(f"cannot be written as safetensors: {_line(error)}") from None
    return {
        "sha256": sha256,
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        **dataclasses.asdict(fit),
        "unwrapped": unwrapped,
        "stripped": stripped,
        "shared": shared,
        "dropped": dropped[:SHOWN],
        "dropped_count": len(dropped),
    }


def _fitted(tensors: dict[str, Tensor], assumed: Assumed) -> tuple[dict[str, Tensor], Fit, dict[str, str], list[str]]:
    """The tensors by the names that netdepth uses, the network that they fit, what the file says of it, and the prefix,
    if any, that was removed because they fit without it."""
    first = next(iter(tensors)).partition(".")[0] + "."
    common = all(key.startswith(first) and key != first for key in tensors)
    for prefix in ("", first) if common else ("",):
        own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        stripped = [prefix] if prefix else []
        if cifar := mapped(own, assumed):
            return cifar.tensors, cifar.fit, cifar.metadata, stripped
        fit = recognise({key: tuple(tensor.shape) for key, tensor in own.items()})
        if fit.model is not None:
            break
    else:
        own, stripped = tensors, []
    known = {key: str(value) for key in ("model", "classes", "width") if (value := getattr(fit, key)) is not None}
    return own, fit, known, stripped


def _unsafe(handle: BufferedReader) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose names may be another project's."""
    try:
        found: dict[str, Tensor] = safetensors.torch.load(handle.read())
    except Exception as error:
        raise BadInput(f"cannot be read as safetensors ({_line(error)})") from None
    return found


def _unpickle(handle: BufferedReader) -> Any:
    """The content of ``handle``, read by PyTorch's reader that runs no code of the file."""
    try:
        return torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes a reader raise anything
        text = str(error)
        if called := re.search(r"GLOBAL (\S+)", text):
            raise BadInput(
                f"is refused: reading it would call {called[1][:100]}, and weights need no code; nothing was run "
                "(from a checkpoint that you trust, save the state_dict alone)"
            ) from None
        if "TorchScript" in text:
            raise BadInput("is a TorchScript program; save its state_dict() and convert that") from None
        if "legacy .tar" in text:
            raise BadInput("is in the .tar format of PyTorch before 0.1.10; save it with a later PyTorch") from None
        if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
            raise BadInput(f"asks for more memory than {GROWTH} times its size; it is damaged or hostile") from None
        raise BadInput(f"holds no weights of PyTorch, or is damaged ({_line(error)})") from None


def _line(error: Exception) -> str:
    """The essence of an error: in a long one of PyTorch's reader it is the last line before the links."""
    lines = str(error).partition("\n\nCheck the documentation")[0].split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return type(error).__name__
    last = lines[-1] if "Weights only load failed" in lines[0] else lines[0]
    return f"{type(error).__name__}: {last[:200]}"


def _unwrap(found: Any) -> tuple[Mapping[Any, Any], list[str], list[str]]:
    """The mapping that should hold the tensors, the names of the entries around it, and the entries beside them."""
    path: list[str] = []
    beside: list[str] = []
    while isinstance(found, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None and not any(isinstance(value, Tensor) for value in found.values()):
            holders = [key for key, value in found.items() if isinstance(key, str) and _holds_tensors(value, NESTED)]
            if len(holders) > 1:
                named = ", ".join(_words(key, found[key]) for key in holders[:5])
                raise BadInput(f"holds tensors in {len(holders)} entries: {named}; save the one that is meant alone")
            inner = next(iter(holders), None)
        if inner is None or len(path) == NESTED:  # a mapping may contain itself
            return found, path, beside
        path.append(inner)
        beside += [_words(key, value) for key, value in found.items() if key != inner]
        found = found[inner]
    raise BadInput(f"holds one {type(found).__name__}, not tensors by name; save model.state_dict()")


def _holds_tensors(value: object, depth: int) -> bool:
    """Whether ``value`` maps names to tensors, or a name to such a mapping; an optimizer's state has no names."""
    if not isinstance(value, Mapping) or depth == 0:
        return False
    inside = [item for key, item in value.items() if isinstance(key, str)]
    return any(isinstance(item, Tensor) or _holds_tensors(item, depth - 1) for item in inside)


def _words(key: object, value: object) -> str:
    """An entry that is left out, in words; a key that is no string could have a text without end."""
    label = key[:60] if isinstance(key, str) else f"one named by a value of type {type(key).__name__}"
    return f"{label} ({type(value).__name__})"


def _sort_out(found: Mapping[Any, Any], most: int) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by name, together at most ``most`` bytes, and all other entries in words."""
    tensors: dict[str, Tensor] = {}
    dropped = []
    for key, value in found.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            dropped.append(_words(key, value))
            continue
        if value.layout != torch.strided or value.is_quantized or value.is_neg() or value.is_conj() or value.is_meta:
            raise BadInput(f"holds {key[:60]!r} in a form that safetensors lacks (sparse, quantised, without data)")
        if key == "__metadata__":
            raise BadInput("names a tensor '__metadata__', which safetensors reserves")
        tensors[key] = value.detach()
    if not tensors:
        raise BadInput(f"holds no tensors; its entries: {', '.join(dropped[:5]) or 'none'}")
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > most:  # a few numbers repeated, or compressed
        raise BadInput(
            f"holds tensors of {thousands(total)} bytes, over {GROWTH} times its size; it is damaged or hostile"
        )
    return tensors, dropped


def _separate(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Every tensor in memory of its own, as safetensors needs it, and how many shared another's memory."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    shared = 0
    for key, tensor in tensors.items():
        memory = tensor.untyped_storage()
        shared += memory.data_ptr() in seen and tensor.nbytes > 0
        alone = memory.data_ptr() not in seen and memory.nbytes() == tensor.nbytes
        seen.add(memory.data_ptr())
        separate[key] = tensor.contiguous() if alone else tensor.clone(memory_format=torch.contiguous_format)
    return separate, shared


if __name__ == "__main__":
    main(*sys.argv[1:])
