"""Lightning at its fastest plain settings: a TensorDataset, fused Adam, nothing logged, shown or saved.

``lightning-default`` leaves Adam's implementation to PyTorch, as most code does.
"""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from baselines.session import LEARNING_RATE, SIZES, Session, open_session, use_threads


def main() -> None:
    session = open_session()
    use_threads(session.threads)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import lightning

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(SIZES[0], SIZES[1]),
                nn.ReLU(),
                nn.Linear(SIZES[1], SIZES[2]),
                nn.ReLU(),
                nn.Linear(SIZES[2], SIZES[3]),
            )
            self.right = 0

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            images, labels = batch
            return functional.cross_entropy(self.layers(images), labels)

        def on_validation_epoch_start(self) -> None:
            self.right = 0

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            images, labels = batch
            self.right += int((self.layers(images).argmax(1) == labels).sum())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            fused = session.variant == "lightning" or None
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, fused=fused)

        def on_train_epoch_end(self) -> None:  # comes after the validation pass
            session.epoch_done(self.right / len(parts["val"]))

    parts = {part: load(session, part) for part in ("train", "val")}
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Net(),
        DataLoader(parts["train"], batch_size=session.batch_size, shuffle=True),
        DataLoader(parts["val"], batch_size=1000),
    )


def load(session: Session, part: str) -> TensorDataset:
    return TensorDataset(torch.from_numpy(session.pixels(part)), torch.from_numpy(session.labels(part)))


if __name__ == "__main__":
    main()
