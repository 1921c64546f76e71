from itertools import product
from pathlib import Path

import netdepth as nd

found = []
rates = (1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
for lr, batch_size in product(rates, (32, 48, 64, 96, 128)):
    settings = [f"optimizer.lr={lr}", f"train.batch_size={batch_size}", "train.budget=3ep"]
    only = nd.Runtime(runs_root=Path("search"), sealed=True)
    run = nd.train("baseline-mlp", dataset="mnist5k", overrides=settings, runtime=only, progress=False)
    found.append((run.result["val"]["best"]["loss"], lr, batch_size, run.path))
print("best of", len(found), min(found))
