"""What ``netdepth inspect`` shows of a run: its probes read back, and the table of its layers."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.table import number_of
from netdepth.text import number, print_table, printable

__all__ = ["brief", "moment", "print_inspection", "read_probes"]

Probe = Mapping[str, Any]
"""``step``, ``epoch`` and what `netdepth.training.layers.probe` returns."""

MAX_ROWS = 14
MOST = 1e300
"""What is larger and finite was not measured: a logarithmic axis of it overflows."""
HEADER = ("#", "layer", "output", "parameters", "gradient", "grad/weight", "variance", "dead", "cosine")
NUMBERS = ("grad_norm", "weight_norm", "grad_to_weight", "activation_var", "dead_fraction", "cosine")
KEYS = ("name", "shape", *NUMBERS)


def read_probes(run: RunDir) -> list[dict[str, Any]]:
    """``probes/*.json`` in the order of their steps, with NaN and infinities back in their places.

    Raises:
        BadInput: a file that is not a probe.
    """
    probes = []
    for path in sorted((run.path / "probes").glob("*.json")):
        probe = run.read_json(f"probes/{path.name}") or {}
        try:
            _check(probe)
            for place, kind in probe.pop("nonfinite", {}).items():
                _put(probe, place, float(kind))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise BadInput(f"{path} is not a probe of this release; remove it, and inspect measures again") from None
        probes.append(probe)
        if [row["name"] for row in probe["layers"]] != [row["name"] for row in probes[0]["layers"]]:
            raise BadInput(f"{path} is of another network than the probes before it; remove it")
    return sorted(probes, key=lambda probe: probe["step"])


def _check(probe: Mapping[str, Any]) -> None:
    """Raise if ``probe`` lacks something that is read of it later, or has no number where one is read."""
    numbers = [probe["loss"], probe["gradient_ratio"]]
    if not isinstance(probe["layers"], list):
        raise TypeError
    for row in probe["layers"]:
        numbers += [row[key] for key in NUMBERS]
        shape = row["shape"]
        if not (isinstance(row["name"], str) and isinstance(shape, list) and shape):
            raise TypeError
        if not all(type(size) is int and 0 < size < MOST for size in shape):
            raise TypeError
    if not isinstance(probe["step"], int) or number_of(probe["epoch"]) is None:
        raise TypeError
    for value in numbers:
        found = None if value is None else number_of(value)
        if value is not None and (found is None or MOST < abs(found) < math.inf):
            raise TypeError


def _put(probe: dict[str, Any], place: str, value: float) -> None:
    """Set ``loss`` or ``layers[3].grad_norm``, as `netdepth.files.records.jsonable` names places."""
    match = re.fullmatch(r"layers\[(\d+)\]\.(\w+)", place)
    if match:
        probe["layers"][int(match[1])][match[2]] = value
    else:
        probe[place] = value


def moment(probe: Probe) -> str:
    """``at initialisation``, ``after epoch 4``; within the first epoch ``after step 20``."""
    if probe["step"] == 0:
        return "at initialisation"
    return f"after epoch {probe['epoch']:.4g}" if probe["epoch"] >= 1 else f"after step {probe['step']}"


def brief(value: float | None, digits: int = 2) -> str:
    """``0.21``, ``3842``, ``3e-9``; ``-`` for none."""
    if value is None:
        return "-"
    if 10**digits <= abs(value) < 10_000:
        return f"{value:.0f}"
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}")


def print_inspection(
    title: str,
    layers: Sequence[Mapping[str, Any]],
    probes: Sequence[Probe],
    words: str,
    stream: TextIO | None = None,
) -> None:
    """The layers at the first and at the last probe as tables, then ``words``.

    Args:
        title: a line about the network.
        layers: ``name``, ``output_shape`` and ``parameters`` of each weight layer, in order.
        probes: as `read_probes` returns them, at least one.
        words: a paragraph.
        stream: stdout if None.
    """
    shown = _shown(len(layers))
    for probe in [probes[0], *probes[-1:]] if len(probes) > 1 else probes:
        found = {row["name"]: row for row in probe["layers"]}
        cells = []
        for index in shown:
            layer = layers[index]
            output = "×".join(map(str, layer["output_shape"]))
            row = found.get(layer["name"], dict.fromkeys(KEYS))
            cells.append([index + 1, layer["name"], output, f"{layer['parameters']:,}", *_cells(row)])
        heading = f"{title}, {moment(probe)}: loss {number(probe['loss'])}"
        print_table(HEADER, cells, right=(0, 2, 3, 4, 5, 6, 7, 8), title=heading, stream=stream)
    if len(shown) < len(layers):
        print(f"{len(layers) - len(shown)} of {len(layers)} layers are left out here; --json has them all", file=stream)
    print(f"{_legend(probes[0])}\n", file=stream)
    print(textwrap.fill(printable(words), width=100), file=stream)


def _legend(probe: Probe) -> str:
    return (
        f"gradient: norm of the weight's gradient over {probe.get('batch', 'the')} training images; variance and "
        "cosine (between different images):\nof what the next layer receives; dead: units that are zero for every image"
    )


def _shown(count: int) -> list[int]:
    """Indices of at most `MAX_ROWS` layers: spread evenly from the first to the last hidden one, and the head."""
    if count <= MAX_ROWS:
        return list(range(count))
    return [*(round(i * (count - 2) / (MAX_ROWS - 2)) for i in range(MAX_ROWS - 1)), count - 1]


def _cells(row: Mapping[str, Any]) -> list[str]:
    dead = "-" if row["dead_fraction"] is None else f"{100 * row['dead_fraction']:.0f} %"
    cosine = "-" if row["cosine"] is None else f"{row['cosine']:.4f}"
    sizes = [brief(row[key]) for key in ("grad_norm", "grad_to_weight", "activation_var")]
    return [*sizes, dead, cosine]
