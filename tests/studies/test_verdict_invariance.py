"""What must not change a verdict: the order of rows and seeds, names; and what must turn it round."""

from __future__ import annotations

import dataclasses
import json
import re

import pandas as pd
import pytest
from support.made_studies import CONDITIONS, DEPTHS, around, cause_of, contrast, make_spec, make_table, renamed, said

from netdepth.studies.reach import more_seeds
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Primary

SPEC = make_spec()


def interesting() -> pd.DataFrame:
    """Degraded, vanished, exploded in part, better and undecided cells, with two runs missing."""
    losses = {
        ("plain", 8): around(0.3, sd=0.05),
        ("plain", 32): [*around(2.3, 6, sd=0.001), *around(0.6, 4)],
        ("residual", 8): [*around(0.05, 8), float("nan"), 411.0],
        ("residual", 32): [None, *around(0.08, 8), None],
    }
    return make_table(SPEC, losses, ratios={("plain", 32): 1e-7, ("plain", 8): 1e-3})


def test_the_order_of_rows_seeds_and_columns_and_number_types_change_nothing() -> None:
    expected = verdict(interesting(), SPEC).as_json()
    spec = dataclasses.replace(SPEC, seeds=(7, 2, 0, 9, 4, 1, 8, 3, 6, 5))
    table = interesting().sample(frac=1, random_state=0).assign(noise="x")
    table = table[sorted(table.columns)].astype({"depth": float, "seed": "Int64"})
    before = table.copy(deep=True)
    assert verdict(table, spec).as_json() == expected
    pd.testing.assert_frame_equal(table, before)


def test_the_names_of_the_conditions_change_only_the_names() -> None:
    names = {"plain": "<script>alert(1)</script>", "residual": "Ωmega 7"}
    axes = (Axis.of_depths(DEPTHS), Axis("condition", {names[name]: value for name, value in CONDITIONS.items()}))
    primary = tuple(
        dataclasses.replace(p, condition=names[p.condition], against=p.against and names[p.against])
        for p in SPEC.primary
    )
    spec = dataclasses.replace(SPEC, scientific=axes, primary=primary)
    table = interesting()
    table["run"] = [f"r{i}" for i in range(len(table))]  # else the names stand in the folders too
    table["folder"] = table["run"]
    there = verdict(renamed(table, names), spec).as_json()
    text = json.dumps(verdict(table, SPEC).as_json(), ensure_ascii=False)
    for old, new in names.items():
        text = re.sub(rf"\b{old}\b", new, text, flags=re.IGNORECASE)
    assert there == json.loads(text)


def test_exchanging_the_runs_of_the_two_families_turns_the_sentence_round() -> None:
    table = make_table(SPEC, {("plain", 32): around(0.5), ("residual", 32): around(0.08)})
    ours, theirs = verdict(table, SPEC), verdict(renamed(table, {"plain": "residual", "residual": "plain"}), SPEC)
    exchange = {"plain": "residual", "residual": "plain"}
    there = {(exchange[item.cell.condition], item.cell.level): item for item in theirs.cells}
    for a in ours.cells:
        b = there[a.cell.condition, a.cell.level]
        assert (a.label, cause_of(a), a.harm) == (b.label, cause_of(b), b.harm)
    a, b = (contrast(found, "shortcut", "residual", 32) for found in (ours, theirs))
    assert (a.label, b.label) == ("helps", "degraded")
    assert (a.tests.exact_p, a.tests.t_p) == (b.tests.exact_p, pytest.approx(b.tests.t_p))
    assert cause_of(a) == cause_of(b) == "optimisation"
    assert [a.difference.value, a.difference.low] == pytest.approx([-b.difference.value, -b.difference.high])
    assert "residual against plain: equivalent within ± 0.02 nats at depth 8; trains better at depth 32" in said(ours)
    assert "residual against plain: equivalent within ± 0.02 nats at depth 8; trains worse at depth 32" in said(theirs)
    turned = dataclasses.replace(SPEC, primary=tuple(Primary("shortcut", d, "plain", "residual") for d in DEPTHS[1:]))
    otherwise = said(verdict(table, turned))
    assert "plain against residual: equivalent within ± 0.02 nats at depth 8; trains worse at depth 32" in otherwise


def test_a_common_factor_of_all_losses_changes_no_p() -> None:
    table = make_table(SPEC, {("plain", 32): around(0.13, sd=0.06), ("residual", 8): around(0.12, sd=0.05)})
    half = table.assign(train_last_loss=table["train_last_loss"] / 2)
    spec = dataclasses.replace(SPEC, smallest_effect=SPEC.smallest_effect / 2)
    a, b = verdict(table, SPEC), verdict(half, spec)
    assert [c.tests.exact_p for c in a.contrasts] == [c.tests.exact_p for c in b.contrasts]
    assert [c.tests.t_p for c in a.contrasts] == pytest.approx([c.tests.t_p for c in b.contrasts])
    one, other = ([(c.label, more_seeds(c, found.spec)) for c in found.contrasts] for found in (a, b))
    assert one == other
