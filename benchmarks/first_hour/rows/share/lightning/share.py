import base64
import io
import sys
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics.classification import MulticlassConfusionMatrix
from train import Digits, Net


def picture(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


folder = Path(sys.argv[1])
events = EventAccumulator(str(folder)).Reload()
curves, axes = plt.subplots()
for tag in ("train_loss", "val_loss"):
    axes.plot([event.step for event in events.Scalars(tag)], [event.value for event in events.Scalars(tag)], label=tag)
axes.legend()
net = Net.load_from_checkpoint(next(folder.glob("checkpoints/epoch*.ckpt"))).eval()
data = Digits()
data.setup("test")
images, labels = next(iter(data.test_dataloader()))
with torch.no_grad():
    guesses = net.layers(images).argmax(1)
matrix = MulticlassConfusionMatrix(10)
matrix.update(guesses, labels)
wrong, places = plt.subplots(1, 10)
for place, index in zip(places, (guesses != labels).nonzero().flatten(), strict=False):
    place.imshow(images[index, 0], cmap="gray")
    place.set_title(f"{guesses[index]}, not {labels[index]}", size=6)
    place.axis("off")
settings = (folder / "config.yaml").read_text()
accuracy = f"<h1>Test accuracy {(guesses == labels).float().mean():.2%}</h1>"
page = accuracy + picture(curves) + picture(matrix.plot()[0]) + picture(wrong) + f"<pre>{settings}</pre>"
Path("run.html").write_text(page)
