from itertools import product
from pathlib import Path

import netdepth as nd
from netdepth.config import Runtime

rates = (1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
apart = Runtime(runs_root=Path("search"), sealed=True)
for lr, batch_size in product(rates, (32, 48, 64, 96, 128)):
    settings = [f"optimizer.lr={lr}", f"train.batch_size={batch_size}", "train.budget=1ep"]
    nd.train("baseline-mlp", dataset="mnist5k", overrides=settings, runtime=apart, progress=False)
print(nd.list_runs(Path("search"), best=1).T)
