"""The tightest plain PyTorch loop a reader would write: tensors in memory, autograd, one fused Adam.

``bare-onednn`` asks for the "medium" matrix-product precision, which sends products to oneDNN on
CPUs with AVX-512; on others it changes nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from baselines.session import LEARNING_RATE, SIZES, open_session, use_threads


def main() -> None:
    session = open_session()
    use_threads(session.threads)
    if session.variant == "bare-onednn":
        torch.set_float32_matmul_precision("medium")
    torch.manual_seed(0)
    images, labels = torch.from_numpy(session.pixels("train")), torch.from_numpy(session.labels("train"))
    val_images, val_labels = torch.from_numpy(session.pixels("val")), torch.from_numpy(session.labels("val"))
    model = nn.Sequential(
        nn.Linear(SIZES[0], SIZES[1]),
        nn.ReLU(),
        nn.Linear(SIZES[1], SIZES[2]),
        nn.ReLU(),
        nn.Linear(SIZES[2], SIZES[3]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    while True:
        running_loss = torch.zeros(())
        for chosen in torch.randperm(len(images)).split(session.batch_size):
            loss = functional.cross_entropy(model(images.index_select(0, chosen)), labels.index_select(0, chosen))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            running_loss += loss.detach()
        with torch.no_grad():
            right = (model(val_images).argmax(1) == val_labels).double().mean()
        session.epoch_done(right.item())


if __name__ == "__main__":
    main()
