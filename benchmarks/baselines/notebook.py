"""The lab notebook: a PIL image per sample, transforms per sample, a DataLoader, ``.item()`` each step.

The transforms do what torchvision's ToTensor and Normalize do to one image, with the same
tensor operations; torchvision itself is not needed.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from baselines.session import LEARNING_RATE, MEAN, SIZES, STD, open_session


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A grey PIL image to float32 ``[1, H, W]`` in 0..1."""
    pixels = torch.from_numpy(np.array(image, copy=True)).view(image.height, image.width, 1)
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def normalize(tensor: torch.Tensor) -> torch.Tensor:
    """Subtract the mean and divide by the standard deviation, per channel."""
    mean = torch.as_tensor((MEAN,), dtype=tensor.dtype).view(-1, 1, 1)
    std = torch.as_tensor((STD,), dtype=tensor.dtype).view(-1, 1, 1)
    return tensor.clone().sub_(mean).div_(std)


class Digits(Dataset):
    """Images one at a time, as a torchvision data set hands them out."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        return normalize(to_tensor(image)), int(self.labels[index])


def main() -> None:
    session = open_session()
    torch.set_num_threads(session.threads)
    torch.manual_seed(0)
    parts = {part: Digits(session.images(part), session.labels(part)) for part in ("train", "val")}
    train = DataLoader(parts["train"], batch_size=session.batch_size, shuffle=True, num_workers=0)
    val = DataLoader(parts["val"], batch_size=session.batch_size, num_workers=0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIZES[0], SIZES[1]),
        nn.ReLU(),
        nn.Linear(SIZES[1], SIZES[2]),
        nn.ReLU(),
        nn.Linear(SIZES[2], SIZES[3]),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    while True:
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
                outputs = model(images)
                running_loss += criterion(outputs, labels).item()
                right += (outputs.argmax(1) == labels).sum().item()
        session.epoch_done(right / len(parts["val"]))


if __name__ == "__main__":
    main()
