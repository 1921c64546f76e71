"""What each command does: it works, and answers with a JSON document and a way to show it to a person."""

from netdepth.commands.answer import Answer
from netdepth.commands.catalogue import check, data_fetch, data_list, data_verify, doctor, list_components
from netdepth.commands.report import report, verdict
from netdepth.commands.runs import board, compare, runs_gc, runs_list, runs_rm, sync
from netdepth.commands.study import quickstart, study
from netdepth.commands.tools import convert, explain, export, inspect, landscape, predict, probe
from netdepth.commands.train import train

__all__ = [
    "Answer", "board", "check", "compare", "convert", "data_fetch", "data_list", "data_verify", "doctor", "explain",
    "export", "inspect", "landscape", "list_components", "predict", "probe", "quickstart", "report", "runs_gc",
    "runs_list", "runs_rm", "study", "sync", "train", "verdict",
]  # fmt: skip
