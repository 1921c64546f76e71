"""The matrix products of an epoch alone, into buffers made beforehand: the floor of any eager loop.

Forward and backward over all training batches, without the gradient of the images, which no one
needs, and the forward products of the validation pass. ``products-onednn`` asks for the "medium"
precision, as `bare` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from baselines.session import SIZES, open_session, use_threads


def products(batch: int, backward: bool) -> Callable[[], None]:
    """A function that does the products of one batch of ``batch`` images."""
    pairs = list(itertools.pairwise(SIZES))
    weights = [torch.randn(m, n) * n**-0.5 for n, m in pairs]
    weight_grads = [torch.empty(m, n) for n, m in pairs]
    inputs = [torch.randn(batch, n) for n, _ in pairs]
    input_grads = [torch.empty(batch, n) for n, _ in pairs]
    outputs = [torch.empty(batch, m) for _, m in pairs]
    errors = [torch.randn(batch, m) for _, m in pairs]

    def work() -> None:
        for i in range(len(pairs)):
            torch.mm(inputs[i], weights[i].t(), out=outputs[i])
        if backward:
            for i in reversed(range(len(pairs))):
                torch.mm(errors[i].t(), inputs[i], out=weight_grads[i])
                if i:
                    torch.mm(errors[i], weights[i], out=input_grads[i])

    return work


def main() -> None:
    session = open_session()
    use_threads(session.threads)
    if session.variant == "products-onednn":
        torch.set_float32_matmul_precision("medium")
    batches, rest = divmod(len(session.labels("train")), session.batch_size)
    step = products(session.batch_size, backward=True)
    last = products(rest, backward=True) if rest else lambda: None
    validate = products(len(session.labels("val")), backward=False)
    while True:
        for _ in range(batches):
            step()
        last()
        validate()
        session.epoch_done(None)


if __name__ == "__main__":
    main()
