import sys

from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1]).Reload()
for tag in ("train_loss", "val_loss"):
    points = events.Scalars(tag)
    plt.plot([point.step for point in points], [point.value for point in points], label=tag)
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.savefig("curves.png")
