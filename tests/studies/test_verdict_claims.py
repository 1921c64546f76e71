"""Residual against plain, missing runs, what may claim, and what a verdict hands on."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from support.made_studies import around, cell, contrast, judged, make_spec, make_table, said, words_of

from netdepth.config import Component, EarlyStopping, Overfitting, RunConfig, TrainConfig
from netdepth.errors import BadInput
from netdepth.stats.exact import seeds_to_reach, sign_flip_test
from netdepth.studies.contrasts import LABELS, out_of_reach
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Nuisance, Primary

SPEC = make_spec()
NAN, INF = math.nan, math.inf


# --- residual against plain ---


def test_the_shortcut_is_tested_pair_by_pair_and_names_the_cause_of_the_worse_one() -> None:
    plain, residual = around(2.3, sd=0.001), around(0.08)
    table = make_table(SPEC, {("plain", 32): plain, ("residual", 32): residual}, ratios={("plain", 32): 1e-9})
    found = verdict(table, SPEC)
    tested = contrast(found, "shortcut", "residual", 32)
    assert (tested.label, tested.cause, tested.harm) == ("helps", "vanishing", None)
    assert tested.p == sign_flip_test([r - p for r, p in zip(residual, plain, strict=True)]).p == 2 / 1024
    assert tested.corrected_p == 4 / 1024
    assert "residual against plain: no evidence of a difference at depth 8; trains better at depth 32" in said(found)
    assert ": the signal of plain vanishes" in said(found)
    assert "10 pairs of runs by seed" in said(found)


def test_a_pair_without_its_partner_leaves_the_test_and_is_counted() -> None:
    plain, residual = around(0.5), around(0.1)
    full = make_table(SPEC, {("plain", 32): plain, ("residual", 32): residual})
    gone = (full["condition"] == "plain") & (full["depth"] == "32") & full["seed"].isin([3, 7])
    found = verdict(full[~gone], SPEC)
    tested = contrast(found, "shortcut", "residual", 32)
    kept = [seed for seed in range(10) if seed not in (3, 7)]
    assert tested.left_out == (3, 7)
    assert [[run.seed for run in runs] for runs in tested.runs] == [kept, kept]
    assert tested.p == sign_flip_test([residual[s] - plain[s] for s in kept]).p
    assert "one run of the pair is missing: seeds 3 and 7" in said(found)
    assert "8 pairs of runs by seed" in said(found)
    assert not found.complete
    assert "Preliminary: 2 of 60 planned runs have no result" in said(found)
    assert "seed 3 of plain at depth 32 (no run)" in said(found)
    unpaired = contrast(found, "depth", "plain", 32)
    assert tuple(map(len, unpaired.runs)) == (8, 10)


@pytest.mark.parametrize("reason", ["failed", "unfinished", "unreadable"])
def test_a_run_without_a_result_is_missing_and_shown(reason: str) -> None:
    table = make_table(SPEC, status={("plain", 32, 4): reason})
    table.loc[table["status"] == reason, "train_last_loss"] = None
    found = verdict(table, SPEC)
    it = cell(found, "plain", 32)
    assert it.cell.counts == {"completed": 9, reason: 1}
    assert "9 runs of 10 planned" in words_of(found, it)
    assert f"seed 4 of plain at depth 32 ({reason})" in said(found)
    (note,) = found.of_kind("missing")
    assert note.runs == ("runs/made/plain-32-s4",)


def test_an_empty_cell_is_undecided_and_still_counts_in_its_family() -> None:
    table = make_table(SPEC, {("plain", 8): [0.5] * 10})
    without = verdict(table[(table["condition"] != "plain") | (table["depth"] != "32")], SPEC)
    tested = contrast(without, "depth", "plain", 32)
    assert (tested.label, tested.p, tested.corrected_p, tested.more_seeds) == ("undecided", 1.0, 1.0, 6)
    assert seeds_to_reach(0.025, 4, "unpaired", looks=2) == 6  # four in the family, at the second interim analysis
    assert "there are no runs to compare" in words_of(without, cell(without, "plain", 32))
    assert contrast(without, "depth", "plain", 8).corrected_p == 4 * contrast(without, "depth", "plain", 8).p


def test_a_loss_of_zero_has_no_logarithm_but_a_verdict() -> None:
    found = judged({("plain", 32): [0.0] * 10})
    it = cell(found, "plain", 32)
    assert it.label == "helps"
    assert it.cell.loss.method == "Student t"
    assert contrast(found, "depth", "plain", 32).ratio.value is None


# --- what may claim ---


def test_what_was_not_named_beforehand_claims_nothing() -> None:
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),))
    found = judged({("plain", 8): [2.0] * 10, ("plain", 32): [2.0] * 10}, spec)
    assert [(int(c.cell.level), c.label) for c in found.contrasts if c.primary] == [(32, "helps")]
    rest = [c for c in found.contrasts if not c.primary]
    assert {(c.family, c.cell.condition, int(c.cell.level)) for c in rest} == {
        *(("depth", name, depth) for name in ("plain", "residual") for depth in (8, 32)),
        *(("shortcut", "residual", depth) for depth in (2, 8)),
    }
    assert {(c.label, c.corrected_p, c.cause, c.harm, c.more_seeds) for c in rest} == {("exploratory", *[None] * 4)}
    assert cell(found, "plain", 8).label == "exploratory"
    assert "not named before the runs, so it claims nothing" in words_of(found, cell(found, "plain", 8))
    assert len(found.claims) == 1


def test_a_corrected_p_above_the_level_is_no_claim() -> None:
    """Nine pairs: 2/512 is significant in a family of one, not in one of seven."""
    seeds = tuple(range(9))
    depths = (2, 4, 6, 8, 10, 12, 14, 16)
    axes = (Axis.of_depths(depths), Axis("condition", {"plain": {}, "residual": {"model.shortcut": "identity"}}))
    for primary, label in ((depths[-1:], "helps"), (depths[1:], "undecided")):
        named = tuple(Primary("shortcut", depth, "residual", "plain") for depth in primary)
        spec = make_spec(seeds=seeds, scientific=axes, primary=named)
        losses = {("plain", 16): around(0.5, 9), ("residual", 16): around(0.1, 9)}
        assert contrast(judged(losses, spec), "shortcut", "residual", 16).label == label
        assert bool(out_of_reach(spec)) == (label == "undecided")


def test_the_study_says_beforehand_what_its_seeds_cannot_reach() -> None:
    six = make_spec(seeds=tuple(range(6)), primary=(Primary("shortcut", 32, "residual", "plain"),))
    (line,) = out_of_reach(six)
    assert "6 seeds cannot decide" in line
    assert "0.031" in line
    assert "7 seeds can" in line
    assert verdict(make_table(six), six).warnings == (line,)
    assert out_of_reach(dataclasses.replace(six, seeds=tuple(range(7)))) == []
    assert out_of_reach(SPEC) == []
    assert out_of_reach(make_spec(primary=())) == []


def test_each_look_multiplies_the_p_values() -> None:
    spec = make_spec(seeds=tuple(range(8)))
    more = spec.extended(range(10))
    assert more.looks == 2
    losses = {("plain", 32): around(0.5)}
    once, twice = (verdict(make_table(s, losses), s) for s in (SPEC, more))
    for a, b in zip(once.contrasts, twice.contrasts, strict=True):
        assert b.p == a.p
        if a.primary:
            assert b.corrected_p == pytest.approx(min(1, 2 * a.corrected_p))
    assert "this is analysis 2, so each p-value is multiplied by 2" in said(twice)
    assert "for 2 interim analyses" in said(twice)


@pytest.mark.parametrize(
    "train",
    [TrainConfig(early_stopping=EarlyStopping()), TrainConfig(overfitting=Overfitting(action="stop"))],
)
def test_a_study_that_stops_early_gets_no_verdict(train: TrainConfig) -> None:
    spec = make_spec(base=RunConfig(Component("mnist"), Component("mlp"), train=train))
    found = judged({("plain", 32): [2.0] * 10}, spec)
    assert not found.judged
    assert {c.label for c in found.cells} == {"not judged"}
    assert found.contrasts == ()
    assert said(found).startswith("No verdict: the runs of this study may stop before their budget")
    assert not make_spec(
        base=RunConfig(Component("mnist"), Component("mlp"), train=TrainConfig(overfitting=Overfitting()))
    ).early_stopping


def test_the_nuisance_settings_are_stated() -> None:
    tuned = Nuisance("optimizer.lr", "tuned", values=(0.1, 0.001), seeds=(100, 101))
    spec = make_spec(nuisance=(Nuisance("train.batch_size"), tuned))
    text = said(judged(spec=spec))
    assert "All networks used batch size 128." in text
    assert "Learning rate was tuned for each network: 0.1 or 0.001, whichever gave the lowest validation loss" in text


# --- what is handed on ---


def test_the_json_is_plain_and_every_number_has_its_runs_and_field() -> None:
    table = make_table(SPEC, {("plain", 32): [NAN, *[411.0] * 9]})
    found = verdict(table, SPEC).as_json()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["schema"] == 1
    assert found["nonfinite"] == {"cells[2].runs[0].loss": "nan"}
    deep = found["cells"][2]
    assert (deep["condition"], deep["depth"], deep["label"], deep["cause"]) == ("plain", 32, "exploded", "explosion")
    assert deep["runs"][1]["loss"] == 411
    assert deep["runs"][1]["sources"] == {
        "loss": "runs/made/plain-32-s1/result.json:train.last.loss",
        "val_error": "runs/made/plain-32-s1/result.json:val.last.accuracy",
        "gradient_ratio": "runs/made/plain-32-s1/probes/init.json:gradient_ratio",
    }
    folders = set(table["folder"])
    for item in found["comparisons"]:
        assert item["runs"]
        assert {*item["runs"], *item["against_runs"]} <= folders
        assert item["field"] == "result.json:train.last.loss"
    for sentence in found["sentences"]:
        assert set(sentence["runs"]) <= folders
    assert {item["label"] for item in [*found["cells"], *found["comparisons"]]} <= set(LABELS)


def test_from_20_runs_on_there_is_a_bootstrap_interval() -> None:
    for n, there in ((19, False), (20, True)):
        spec = make_spec(seeds=tuple(range(n)))
        assert (judged(spec=spec).cells[0].cell.bootstrap is not None) == there


def test_a_study_of_depth_alone() -> None:
    spec = make_spec(scientific=(Axis.of_depths([2, 32]),), primary=(Primary("depth", 32, ""),))
    found = judged({("", 32): around(0.5)}, spec)
    assert [c.label for c in found.cells] == ["reference", "degraded"]
    assert found.sentences[0].text.startswith("depth: trains worse at depth 32 (higher training loss than at")
    assert found.sentences[1].text.startswith("Depth 32 against depth 2: trains worse.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="train_last_loss"), "unknown column of the table 'train_last_loss'"),
        (lambda t: t.assign(depth=3), "unknown depth of run plain-2-s0: '3'"),
        (lambda t: t.assign(condition="plan"), "did you mean 'plain'"),
        (lambda t: t.assign(seed=t["seed"] + 1), "unknown seed of run plain-2-s9: '10'"),
        (lambda t: t.assign(depth="2"), "are the same cell and seed"),
        (lambda t: t.assign(classes=range(len(t))), "different classes"),
        (lambda t: t.assign(classes=None), "classes = None is not acceptable"),
        (lambda t: t.iloc[:0], "classes = None is not acceptable"),
    ],
)
def test_a_table_that_does_not_fit_the_plan_is_refused(change, words) -> None:
    with pytest.raises(BadInput, match=words) as error:
        verdict(change(make_table(SPEC)), SPEC)
    assert "\n" not in str(error.value)
