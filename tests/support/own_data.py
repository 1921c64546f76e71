"""Made pictures with labels, and what a source of one's own data answers about a file of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdepth.config import Component
from netdepth.data import Splits, load
from netdepth.errors import NetdepthError

RNG = np.random.default_rng(7)
X = RNG.integers(0, 256, (40, 6, 6), dtype=np.uint8)
Y = np.arange(40) % 4


def splits_of(name: str, path: object, **settings: Any) -> Splits:
    return load(Component(name, {"path": str(path), **settings}), data_dir=None)


def refused(name: str, path: object, **settings: Any) -> str:
    with pytest.raises(NetdepthError) as caught:
        splits_of(name, path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answer_of(name: str, path: object) -> str:
    """The line that damaged data are answered with, or nothing if they can be read."""
    try:
        splits_of(name, path)
    except NetdepthError as error:
        return str(error)
    return ""
