"""The table of docs/reliability.md from what the fault drills recorded, so that no count is typed by hand.

    pytest tests/faults -m faults --faults=long --faults-record    run the drills and record their figures
    python benchmarks/checkpoint_cost.py                           measure what checkpoints cost
    python tools/publish.py render                                 refresh the page

A drill leaves docs/results/reliability/<row>-<name>.json.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "reliability"
COST = ROOT / "benchmarks" / "results" / "checkpoint_cost.json"


def table() -> str:
    """One line per drill: row, name, faults put in, held, and where they fell or what was measured."""
    lines = ["| # | Fault | Put in | Held | Where, and what was measured |", "| ---: | --- | ---: | ---: | --- |"]
    drills = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    for drill in sorted(drills, key=lambda drill: (drill["row"], drill["name"])):
        places = ", ".join(f"{place} {number}" for place, number in drill["places"].items())
        measured = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in drill["measured"].items())
        said = "; ".join(text for text in (places, measured, *drill["notes"]) if text)
        held = f"{drill['held']:,}" if drill["held"] == drill["injected"] else f"**{drill['held']:,}**"
        lines.append(f"| {drill['row']} | {drill['name']} | {drill['injected']:,} | {held} | {said} |")
    return "\n".join(lines)


def cost() -> str:
    """What checkpoints cost, in a sentence."""
    measured = json.loads(COST.read_text())
    ratios = ", ".join(f"{ratio:.3f}" for ratio in measured["ratios"])
    most = 100 * max(measured["shares"])
    noisy = " With so few rounds or so much else to do the ratio says nothing yet; it is to be measured again."
    doubt = noisy if measured["rounds"] < 3 or measured["load"] > 2 else ""
    share = 100 * measured["median_share"]
    return (
        f"{measured['what']}, rounds: {measured['rounds']}. {share:.2f} % of the time went into "
        f"copying and writing checkpoints (median; {most:.2f} % at most). Side by side, a training with "
        f"checkpoints took {measured['median_ratio']:.3f} times one without (rounds: {ratios}; load of the machine "
        f"{measured['load']}). {measured['system']}.{doubt}"
    )
