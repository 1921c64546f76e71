"""netdepth: a laboratory for depth in neural networks."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_API = {
    "dataset": "data.arrays",
    "explain": "tools.explain", "export": "tools.export", "landscape": "tools.landscape",
    "list_runs": "api", "load": "tools.runs", "predict": "tools.predict", "probe": "tools.linear_probe",
    "replay": "api", "study": "api", "sync": "api", "train": "api",
}  # fmt: skip
"""What is offered, and the module that has it."""
_REGISTRIES = {
    "AUGMENTATIONS": "data.augment", "DATASETS": "data", "METRICS": "training.evaluate", "MODELS": "models",
    "OBJECTIVES": "training.objectives", "OPTIMIZERS": "training.optim", "RECIPES": "recipes",
    "SCHEDULES": "training.optim", "TRACKERS": "trackers",
}  # fmt: skip
"""Where components of one's own are registered (docs/your-own.md), and the module that has it."""
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    """Load the API on first use, so that ``import netdepth`` does not import torch."""
    module = _API.get(name) or _REGISTRIES.get(name)
    if module is not None:
        import importlib

        return getattr(importlib.import_module(f"netdepth.{module}"), name)
    raise AttributeError(f"module 'netdepth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API, *_REGISTRIES])
