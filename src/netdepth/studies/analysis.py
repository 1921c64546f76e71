"""From run folders to rows, estimates, exact tests and verdicts; no torch here."""

from netdepth.runs.compare import Comparison, Group, compare
from netdepth.runs.table import run_row, runs_table, source
from netdepth.stats.exact import holm, permutation_test, sign_flip_test
from netdepth.stats.intervals import Estimate, difference_interval, mean_interval, prediction_interval
from netdepth.studies.contrasts import LABELS, Contrast, out_of_reach
from netdepth.studies.table import study_table
from netdepth.studies.verdict import Verdict, verdict

__all__ = [
    "LABELS",
    "Comparison",
    "Contrast",
    "Estimate",
    "Group",
    "Verdict",
    "compare",
    "difference_interval",
    "holm",
    "mean_interval",
    "out_of_reach",
    "permutation_test",
    "prediction_interval",
    "run_row",
    "runs_table",
    "sign_flip_test",
    "source",
    "study_table",
    "verdict",
]
