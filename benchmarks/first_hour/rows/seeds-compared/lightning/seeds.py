from pathlib import Path

import numpy as np
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

runs = sorted(Path("seeds/lightning_logs").iterdir())
values = [EventAccumulator(str(run)).Reload().Scalars("test_accuracy")[0].value for run in runs]
half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
for run, value in zip(runs, values, strict=True):
    print(f"{run.name}  {value:.2%}")
print(f"mean {np.mean(values):.2%} ± {half:.2%} (n = {len(values)})")
