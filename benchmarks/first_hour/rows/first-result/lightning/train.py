import torch
from digits import MNIST
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.functional import accuracy


class Digits(LightningDataModule):
    def __init__(self, batch_size: int = 64):
        super().__init__()
        self.save_hyperparameters()

    def load(self, train: bool) -> TensorDataset:
        part = MNIST("data", train=train, download=True)
        return TensorDataset((part.data[:, None] / 255 - 0.1307) / 0.3081, part.targets)

    def setup(self, stage: str):
        seed = torch.Generator().manual_seed(0)
        self.train, self.val = random_split(self.load(train=True), [0.75, 0.25], seed)
        self.test = self.load(train=False)

    def train_dataloader(self):
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=1000)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=1000)


class Net(LightningModule):
    def __init__(self, lr: float = 1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def step(self, batch, part: str):
        images, labels = batch
        logits = self.layers(images)
        loss = F.cross_entropy(logits, labels)
        self.log(f"{part}_loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        right = accuracy(logits, labels, task="multiclass", num_classes=10)
        self.log(f"{part}_accuracy", right, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, index):
        return self.step(batch, "train")

    def validation_step(self, batch, index):
        self.step(batch, "val")

    def test_step(self, batch, index):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class CLI(LightningCLI):
    def after_fit(self):
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path="best")


if __name__ == "__main__":
    stop = EarlyStopping("val_loss", patience=5)
    keep = ModelCheckpoint(monitor="val_loss", save_last=True)
    defaults = {"max_epochs": 30, "callbacks": [stop, keep]}
    CLI(Net, Digits, seed_everything_default=0, trainer_defaults=defaults)
