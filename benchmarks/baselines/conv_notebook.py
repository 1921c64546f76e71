"""The lab notebook: PIL transforms per sample in a DataLoader, float32, NCHW, ``.item()`` each step.

The transforms do what torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize do to one image;
torchvision itself is not needed. For a GPU, processes load (``--loaders``) and memory is pinned.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from baselines.conv_session import DECAY, LEARNING_RATE, MOMENTUM, PAD, WARM_UP_STEPS, Work, compete
from baselines.conv_torch import network


class Pictures(Dataset):
    """Images one at a time, as a torchvision data set hands them out."""

    def __init__(self, work: Work) -> None:
        self.images, self.labels = work.images(), work.labels()
        self.mean, self.std = (tuple(map(float, row)) for row in work.statistics())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].transpose(1, 2, 0).squeeze())
        width, height = image.size
        padded = ImageOps.expand(image, PAD)
        left, top = random.randint(0, 2 * PAD), random.randint(0, 2 * PAD)
        image = padded.crop((left, top, left + width, top + height))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.normalize(self.to_tensor(image)), int(self.labels[index])

    def to_tensor(self, image: Image.Image) -> Tensor:
        """A PIL image to float32 ``[C, H, W]`` in 0..1."""
        pixels = torch.from_numpy(np.array(image, copy=True)).view(image.height, image.width, len(image.getbands()))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)

    def normalize(self, tensor: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation, per channel."""
        mean, std = (torch.as_tensor(values, dtype=tensor.dtype).view(-1, 1, 1) for values in (self.mean, self.std))
        return tensor.clone().sub_(mean).div_(std)


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    torch.set_num_threads(work.threads)
    cuda = work.device == "cuda"
    pictures, order = Pictures(work), work.order().tolist()
    criterion = nn.CrossEntropyLoss()

    def epoch(chosen: list[int]) -> dict[str, Any]:
        model = network(work).to(work.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY)
        loader = DataLoader(
            pictures, batch_size=work.batch_size, sampler=chosen, num_workers=work.loaders, pin_memory=cuda
        )
        running_loss = 0.0
        started = time.perf_counter()
        for pixels, answers in loader:
            images, labels = pixels.to(work.device, non_blocking=cuda), answers.to(work.device, non_blocking=cuda)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "images": len(chosen), "train_loss": running_loss / len(loader)}

    epoch(order[: WARM_UP_STEPS * work.batch_size])
    return lambda: epoch(order)


if __name__ == "__main__":
    compete(prepare)
