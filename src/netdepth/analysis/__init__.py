"""From run folders to rows, estimates and comparisons; no torch here."""

from netdepth.analysis.compare import Comparison, Group, compare
from netdepth.analysis.stats import Estimate, mean_interval
from netdepth.analysis.table import run_row, runs_table, source

__all__ = ["Comparison", "Estimate", "Group", "compare", "mean_interval", "run_row", "runs_table", "source"]
