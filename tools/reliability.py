"""Make the table of docs/reliability.md from what the fault drills recorded, so that no count is typed by hand.

    pytest tests/faults -m faults --faults=long --faults-record    run the drills and record their figures
    python benchmarks/checkpoint_cost.py                           measure what checkpoints cost
    python tools/reliability.py render                             refresh the page
    python tools/reliability.py check                              exit 1 if it is not what the records say

A drill leaves docs/results/reliability/<row>-<name>.json. The table stands between
``<!-- reliability -->`` and ``<!-- /reliability -->``, the cost between ``<!-- checkpoint-cost -->`` and its end.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "docs" / "results" / "reliability"
COST = ROOT / "benchmarks" / "results" / "checkpoint_cost.json"
COST_BLOCK = re.compile(r"(<!-- checkpoint-cost -->\n).*?(<!-- /checkpoint-cost -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- reliability -->\n).*?(<!-- /reliability -->)", re.DOTALL)


def drills() -> list[dict[str, Any]]:
    """What was recorded, by row and name."""
    found = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    return sorted(found, key=lambda drill: (drill["row"], drill["name"]))


def table() -> str:
    """One line per drill: row, name, faults put in, held, and where they fell or what was measured."""
    lines = ["| # | Fault | Put in | Held | Where, and what was measured |", "| ---: | --- | ---: | ---: | --- |"]
    for drill in drills():
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


def refreshed(text: str) -> str:
    """``text`` with the table and the cost as they are now."""
    if COST.exists():
        text = COST_BLOCK.sub(lambda match: f"{match[1]}\n{cost()}\n\n{match[2]}", text)
    return BLOCK.sub(lambda match: f"{match[1]}\n{table()}\n\n{match[2]}", text)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["render"]:
            PAGE.write_text(refreshed(PAGE.read_text()))
        case ["check"]:
            if refreshed(PAGE.read_text()) != PAGE.read_text():
                print("docs/reliability.md is not what the drills recorded; run: python tools/reliability.py render")
                return 1
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
