"""``quickstart``: the baseline and a small depth study, on the digits that come with the package."""

from __future__ import annotations

import argparse
import sys

from netdepth.commands.answer import Answer, runtime_of
from netdepth.commands.study import conducted
from netdepth.commands.training import trained
from netdepth.runs.folder import RunDir

__all__ = ["quickstart"]

BASELINE, STUDY, DATASET = "baseline-mlp", "depth-mlp5k", "mnist5k"


def quickstart(args: argparse.Namespace) -> Answer:
    """Train one network, then ask of seventy whether depth helps, and write the report."""
    from netdepth import api
    from netdepth.api import ask
    from netdepth.report.summary import print_next, print_quickstart
    from netdepth.studies.run import conduct
    from netdepth.training import launch

    runtime = runtime_of(args)
    name, configs, _ = api.plan(BASELINE, seed=args.seed or 0, dataset=DATASET)
    print("1 of 2: one network on 3,000 digits", file=sys.stderr)
    outcomes = launch.launch(name, configs, runtime)
    baseline = trained(outcomes, several=False)
    if baseline.code:
        return baseline
    print("2 of 2: seventy networks of 2 to 32 layers, plain and residual", file=sys.stderr)
    spec, _ = ask(STUDY)
    study = conducted(conduct(spec, runtime), report=True)

    def show() -> None:
        baseline.show()
        folder = outcomes[0].path
        if folder is not None:
            print_quickstart(RunDir(folder), baseline.document["runs"][0]["figure"])
        print()
        study.show()
        print_next(study.document["report"])

    return Answer({"baseline": baseline.document, "study": study.document}, show, study.code)
