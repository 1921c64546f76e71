from itertools import product

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from train import Digits, Net

found = []
rates = (1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
for lr, batch_size in product(rates, (32, 48, 64, 96, 128)):
    seed_everything(0)
    keep = ModelCheckpoint(monitor="val_loss")
    trainer = Trainer(max_epochs=1, callbacks=keep, default_root_dir="search")
    trainer.fit(Net(lr), Digits(batch_size))
    found.append((keep.best_model_score.item(), lr, batch_size, keep.best_model_path))
print("best of", len(found), min(found))
