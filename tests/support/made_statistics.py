"""Layer statistics with known numbers, as a file holds them and as `inspect` reads them."""

from __future__ import annotations

from typing import Any

from netdepth.config import from_json
from netdepth.files.atomic import restored
from netdepth.training.layers import Statistics


def made(
    step: int = 0,
    *,
    ratio: float = 1.0,
    loss: float = 2.4,
    variances: tuple[float, ...] = (1.0, 1.0, 1.0),
    cosine: float | None = 0.6,
    dead: float | None = 0.1,
    head: float = 1.0,
    gradient: float = 0.5,
) -> dict[str, Any]:
    """The content of a file: a hidden layer per variance and a head of ten classes; 100 steps an epoch."""
    row = {"kind": "Linear", "shape": [8], "weight_norm": 2.0, "activation_mean": 0.0, "grad_norm": gradient}
    hidden = [
        {**row, "name": f"hidden.{i}", "activation_var": variance, "dead_fraction": dead, "cosine": cosine}
        for i, variance in enumerate(variances)
    ]
    last = {**row, "name": "head", "shape": [10], "weight_norm": head, "activation_var": 1.0}
    layers = [*hidden, {**last, "dead_fraction": None, "cosine": 0.3}]
    for layer in layers:
        layer["grad_to_weight"] = layer["grad_norm"] / layer["weight_norm"] if layer["weight_norm"] else None
    return {
        "step": step, "epoch": step / 100, "batch": 256, "loss": loss, "gradient_ratio": ratio, "layers": layers,
    }  # fmt: skip


def statistics(*args: Any, **settings: Any) -> Statistics:
    """The same as `inspect` reads it."""
    return read(made(*args, **settings))


def read(content: dict[str, Any]) -> Statistics:
    found: Statistics = from_json(Statistics, restored(content), finite=False)
    return found
