"""From run folders to rows, estimates, exact tests and verdicts; no torch here."""

from netdepth.analysis.compare import Comparison, Group, compare
from netdepth.analysis.contrasts import LABELS, Contrast, out_of_reach
from netdepth.analysis.permutation import holm, permutation_test, sign_flip_test
from netdepth.analysis.stats import Estimate, difference_interval, mean_interval, prediction_interval
from netdepth.analysis.study_table import study_table
from netdepth.analysis.table import run_row, runs_table, source
from netdepth.analysis.verdict import Verdict, verdict

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
