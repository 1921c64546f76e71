"""The limit: the operations of an epoch over the best measured rate of large square products.

PyTorch's default route (MKL on x86) and oneDNN are both tried, several sizes, several times. Every
turn measures again, so the slowest and fastest turn show how far the machine drifted.
"""

from __future__ import annotations

import itertools
import time

import torch
from torch import nn
from torch.utils import mkldnn

from baselines.session import SIZES, open_session, use_threads

SIDES = (1024, 2048, 3072)
REPEATS = 3


def operations(train: int, val: int) -> int:
    """Multiplications and additions of the matrix products in an epoch.

    Per training image every layer has a forward product, a weight gradient and, except the first,
    an input gradient; a validation image has the forward products.
    """
    layers = [n * m for n, m in itertools.pairwise(SIZES)]
    return 2 * (train * (3 * sum(layers) - layers[0]) + val * sum(layers))


def best_rate() -> float:
    """The best rate over routes, sides and repeats, in operations per second."""
    best = 0.0
    for side in SIDES:
        a, b, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
        routes = {"default": lambda a=a, b=b, out=out: torch.mm(a, b, out=out)}
        if torch.backends.mkldnn.is_available():
            layer, packed = mkldnn.to_mkldnn(nn.Linear(side, side)), a.to_mkldnn()
            routes["onednn"] = lambda layer=layer, packed=packed: layer(packed)
        for _ in range(REPEATS):
            for route in routes.values():
                started = time.perf_counter()
                route()
                best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def main() -> None:
    session = open_session()
    use_threads(session.threads)
    work = operations(len(session.labels("train")), len(session.labels("val")))
    with torch.no_grad():
        while True:
            session.epoch_done(None, seconds=work / best_rate())


if __name__ == "__main__":
    main()
