"""The lab notebook, one seed: a PIL image per sample, transforms per sample, a DataLoader, ``.item()`` each step.

Only the first seed of each depth is trained; the driver's tables call the time for all seeds extrapolated.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader

from baselines.notebook import Digits
from baselines.study_session import LEARNING_RATE, Orders, Outcome, Train, Work, compete
from baselines.study_torch import network


def prepare(work: Work) -> Train:
    torch.set_num_threads(work.threads)
    parts = {part: Digits(work.images(part), work.labels(part)) for part in ("train", "val")}
    val = DataLoader(parts["val"], batch_size=work.batch_size, num_workers=0)
    criterion = nn.CrossEntropyLoss()

    def train_one(depth: int, seed: int, orders: Orders) -> Outcome:
        start = [torch.from_numpy(array) for array in work.start(depth, seed)]
        model = nn.Sequential(nn.Flatten(), *network(start))
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        for order in orders:
            train = DataLoader(parts["train"], batch_size=work.batch_size, sampler=order.tolist(), num_workers=0)
            model.train()
            running_loss = 0.0
            for images, labels in train:
                optimizer.zero_grad()
                loss = criterion(model(images), labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item()
            model.eval()
            right = 0
            with torch.no_grad():
                for images, labels in val:
                    right += (model(images).argmax(1) == labels).sum().item()
        return running_loss / len(train), right / len(parts["val"])

    for depth in work.depths:
        train_one(depth, work.seeds[0], work.few(work.orders(work.seeds[0])))
    return lambda depth, seeds: [train_one(depth, seed, work.orders(seed)) for seed in seeds]


if __name__ == "__main__":
    compete(prepare)
