"""What else a study may ask, from its table to its words: trends, interactions, any two cells, "not worse", a metric
of choice, relative effects, seeds per condition, factors with names, and no factor at all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.made_studies import CONDITIONS, around, cause_of, cell, contrast, judged, make_spec, said, words_of

from netdepth.errors import BadInput
from netdepth.stats.exact import permutation_test, sign_flip_test, trend_test
from netdepth.stats.intervals import combination_interval, combination_p
from netdepth.studies.cells import source_of_score
from netdepth.studies.reach import more_seeds, out_of_reach
from netdepth.studies.wording import quantity_of
from netdepth.studyspec import Axis, Primary

NAN = math.nan
LEVELS = ("2", "8", "32")
TWINS = ("residual", "plain")
CLEAR = {("plain", 8): around(0.2, sd=0.02, stream=1), ("plain", 32): around(0.3, sd=0.02, stream=2)}


def only(found, family: str):
    """The one planned comparison of a family."""
    (it,) = [c for c in found.contrasts if c.primary and c.family == family]
    return it


# --- trends and interactions ---


def test_a_trend_is_tested_over_all_levels() -> None:
    spec = make_spec(primary=(Primary("trend", None, "plain"),))
    found = judged(CLEAR, spec)
    it = only(found, "trend")
    groups = [[run.capped for run in runs] for runs in it.runs]
    assert (it.label, it.design, it.corrected_p) == ("degraded", "unpaired", it.tests.p)
    assert it.tests.exact_p == trend_test(groups, [0, 1, 2]).p
    assert it.difference.value == pytest.approx(0.1)  # per level
    logs = [[math.log(v) for v in group] for group in groups]
    slope = [-0.5, 0, 0.5]
    assert it.tests.t_p == pytest.approx(max(combination_p(groups, slope), combination_p(logs, slope)))
    assert found.answer == "Plain over all levels of the depth: the training loss rises (corrected p < 0.0001)."
    assert "Mean training loss from 0.100 to 0.300 nats, slope per level +0.1" in said(found)
    falling = only(judged({("plain", 2): around(0.3), ("plain", 8): around(0.2)}, spec), "trend")
    assert falling.label == "helps"
    none = judged(spec=spec)
    assert only(none, "trend").label == "undecided"
    assert only(none, "trend").equivalence_p is None
    assert "the training loss" not in none.answer


def test_a_trend_asks_for_the_seeds_that_its_slope_needs() -> None:
    """A slope over five levels is an average of many runs: ten seeds more are plenty, not a thousand."""
    axes = (Axis.of_depths((2, 4, 8, 16, 32)), Axis("condition", {"plain": {}}))
    spec = make_spec(scientific=axes, seeds=tuple(range(5)), primary=(Primary("trend", None, "plain"),), max_looks=3)
    losses = {("plain", 2**k): around(0.1 + 0.01 * k, 5, 0.03, stream=k) for k in range(1, 6)}
    it = only(judged(losses, spec), "trend")
    seeds, again = more_seeds(it, spec)
    assert (it.label, again) == ("undecided", True)
    more = spec.extended(range(5 + seeds))
    larger = {("plain", 2**k): around(0.1 + 0.01 * k, 5 + seeds, 0.03, stream=k) for k in range(1, 6)}
    assert 1 <= seeds <= 15
    assert only(judged(larger, more), "trend").label == "degraded"


@pytest.mark.parametrize(("seeds", "design"), [(10, "paired"), (5, "paired within conditions")])
def test_an_interaction_compares_two_effects_of_depth(seeds: int, design: str) -> None:
    """Does depth change more in plain than in residual networks? The question of the paper."""
    spec = make_spec(seeds=tuple(range(seeds)), primary=(Primary("interaction", 32, "plain", "residual"),))
    losses = {("plain", 32): around(0.3, seeds, 0.02), ("residual", 32): around(0.15, seeds, 0.02, stream=7)}
    found = judged(losses, spec)
    it = only(found, "interaction")
    assert (it.label, it.design) == ("degraded", design)
    a, b, c, d = ([run.capped for run in runs] for runs in it.runs)
    mine, theirs = ([x - y for x, y in zip(one, other, strict=True)] for one, other in ((a, b), (c, d)))
    assert it.difference.value == pytest.approx(np.mean(mine) - np.mean(theirs)) == pytest.approx(0.15)
    if design == "paired":
        both = [x - y for x, y in zip(mine, theirs, strict=True)]
        assert (it.tests.exact_p, it.tests.t_p) == (sign_flip_test(both).p, pytest.approx(combination_p([both], [1])))
    else:
        assert it.tests.exact_p == permutation_test(mine, theirs).p
        assert it.tests.t_p == pytest.approx(combination_p([mine, theirs], [1, -1]))
    assert "what depth 32 changes against depth 2, in plain against residual: the effect on the training loss is" in (
        found.answer[0].lower() + found.answer[1:]
    ).replace("What depth", "what depth")
    assert "larger" in found.answer
    paired = (
        f"{seeds} runs each, paired by seed" if design == "paired" else f"{seeds} and {seeds} pairs of runs by seed"
    )
    assert paired in said(found)
    null = judged({**losses, ("residual", 32): around(0.3, seeds, 0.02, stream=7)}, spec)
    assert (only(null, "interaction").label, null.claims) == ("undecided", ())


# --- any two cells, and "not worse" ---


def test_any_cell_is_compared_with_any_other() -> None:
    spec = make_spec(primary=(Primary("cells", 32, "residual", "plain", against_level=2),))
    found = judged({("residual", 32): around(0.05)}, spec)
    it = only(found, "cells")
    assert (it.label, it.cell.place, it.against.place) == ("helps", "depth 32", "depth 2")
    assert "Residual at depth 32 against plain at depth 2: trains better" in found.answer
    assert cause_of(it) is None, "two settings differ, and depth is one of them"
    assert only(judged(spec=spec), "cells").label == "equivalent"
    assert "equivalent within ± 0.02 nats" in judged(spec=spec).answer
    assert found.as_json()["comparisons"][0]["against"] == {"condition": "plain", "depth": 2}


def test_not_worse_is_one_sided_against_its_margin() -> None:
    item = Primary("shortcut", 32, "residual", "plain", aim="not worse", margin=0.05)
    spec = make_spec(primary=(item,), max_looks=2)
    for mean, label in ((0.1, "not worse"), (0.12, "not worse"), (0.02, "not worse"), (0.16, "undecided")):
        found = judged({("residual", 32): around(mean, sd=0.02)}, spec)
        it = only(found, "shortcut")
        differences = [x.capped - y.capped for x, y in zip(*it.runs, strict=True)]
        assert it.label == label
        assert it.equivalence_p == pytest.approx(combination_p([differences], [1], beyond=0.05))
        assert it.corrected_p == pytest.approx(min(1, 2 * it.equivalence_p))
    assert more_seeds(it, spec) == (None, True), "it is worse by more than the margin"
    ok = judged({("residual", 32): around(0.12, sd=0.02)}, spec)
    assert "residual is not worse by more than 0.05 nats than plain at depth 32" in ok.answer.lower()
    assert "one-sided t test against the margin" in said(ok)
    # Scatter too large to say so: the seeds asked for are those of the margin, not those that find the difference.
    wide = only(judged({("residual", 32): around(0.1, sd=0.1)}, spec), "shortcut")
    seeds, _ = more_seeds(wide, spec)
    assert wide.label == "undecided"
    assert 10 < 10 + seeds < 100
    # A run that failed is worse by more than any margin.
    failed = judged({("residual", 32): [NAN, *around(0.1, 9)]}, spec)
    assert (only(failed, "shortcut").label, only(failed, "shortcut").equivalence_p) == ("undecided", 1.0)
    assert out_of_reach(spec) == []


# --- metrics and effects ---


def test_a_metric_where_more_is_better_is_shown_in_its_own_direction() -> None:
    spec = make_spec(metric="val_last_accuracy", smallest_effect=0.01)
    errors = {("plain", 32): around(0.08, sd=0.001), ("residual", 8): around(0.01, sd=0.001)}
    found = judged({("residual", 32): around(0.5)}, spec, errors=errors)
    worse, better = contrast(found, "depth", "plain", 32), contrast(found, "depth", "residual", 8)
    same = contrast(found, "depth", "residual", 32)
    assert [it.label for it in (worse, better, same)] == ["degraded", "helps", "equivalent"]
    assert worse.own_means == pytest.approx((0.92, 0.97))
    assert worse.difference.value == pytest.approx(0.05)
    own = worse.own(worse.difference)
    assert own.value == pytest.approx(-0.05)
    assert own.low <= own.value <= own.high < 0
    assert worse.harm is None, "it is not about the training loss"
    text = said(found)
    assert "Plain at depth 32 against depth 2: lower validation accuracy." in text
    assert "Mean validation accuracy 92.00 % against 97.00 %, difference −5.00 percentage points" in text
    assert "Residual at depth 8 against depth 2: higher validation accuracy." in text
    assert "equivalent within ± 1 percentage points" in text
    assert "residual has a higher validation accuracy than plain from depth 8 on" in found.answer.lower()
    part = next(c for c in found.as_json()["comparisons"] if (c["condition"], c["depth"]) == ("plain", 32))
    assert (part["metric"], part["field"]) == ("val_last_accuracy", "result.json:val.last.accuracy")
    assert part["means"] == pytest.approx([0.92, 0.97])
    assert part["difference"]["value"] == pytest.approx(-0.05)
    assert part["difference"]["low"] < part["difference"]["high"] < 0
    assert part["difference_corrected"]["low"] < part["difference_corrected"]["high"] < 0


def test_a_metric_named_lower_is_worse_where_it_is_higher() -> None:
    spec = make_spec(metric="val_last_loss")
    found = judged({("plain", 32): around(0.5)}, spec)
    assert contrast(found, "depth", "plain", 32).label == "degraded"
    assert "higher validation loss" in said(found)
    assert contrast(found, "shortcut", "residual", 32).label == "helps"
    worse = "Plain has a higher validation loss at depth 32 than at depth 2."
    assert found.answer == f"{worse} Residual has a lower validation loss than plain at depth 32."
    both = judged({("plain", 32): around(0.5), ("residual", 8): around(0.4)}, spec)
    assert "The validation loss is worse than at depth 2 in both conditions: plain at depth 32; residual" in both.answer


@pytest.mark.parametrize(("metric", "value"), [(None, 0.1), ("val_last_accuracy", 0.9)])
def test_a_relative_effect_is_a_share_of_the_reference(metric: str | None, value: float) -> None:
    """± 10 % of the mean of the reference, of what falls and of what rises alike."""
    primary = (Primary("depth", 32, "plain"), Primary("shortcut", 32, "residual", "plain", aim="not worse"))
    spec = make_spec(effect="relative", smallest_effect=0.1, metric=metric, primary=primary)

    def labels(share: float, sd: float) -> tuple[str, ...]:
        there, here = around(value, sd=sd * value), around((1 + share) * value, sd=sd * value, stream=3)
        if metric is None:
            found = judged({("plain", 2): there, ("plain", 32): here, ("residual", 32): there}, spec)
        else:
            runs = {("plain", 2): there, ("plain", 32): here, ("residual", 32): there}
            found = judged(spec=spec, errors={place: [1 - v for v in values] for place, values in runs.items()})
        return tuple(c.label for c in found.contrasts if c.primary)

    assert labels(0.0, 0.02) == ("equivalent", "not worse")
    assert labels(0.0, 0.4)[0] == "undecided"
    up, down = labels(0.5, 0.02), labels(-0.5, 0.02)
    assert [up[0], down[0]] == (["degraded", "helps"] if metric is None else ["helps", "degraded"])
    # The residual stays at the value of the reference, so it is worse where plain is better by half.
    assert [up[1], down[1]] == (["not worse", "undecided"] if metric is None else ["undecided", "not worse"])


def test_a_relative_margin_is_fiellers() -> None:
    spec = make_spec(effect="relative", smallest_effect=0.1, primary=(Primary("depth", 32, "plain"),))
    found = judged({("plain", 32): around(0.104, sd=0.004), ("plain", 2): around(0.1, sd=0.004, stream=9)}, spec)
    it = only(found, "depth")
    a, b = ([run.capped for run in runs] for runs in it.runs)
    above = combination_p([[x - 1.1 * y for x, y in zip(a, b, strict=True)]], [1], beyond=0.0)
    below = combination_p([[0.9 * y - x for x, y in zip(a, b, strict=True)]], [1], beyond=0.0)
    assert it.samples.equivalence(0.1, relative=True) == pytest.approx(max(above, below))
    inside = combination_interval([[x - y for x, y in zip(a, b, strict=True)]], [1], 0.9)
    assert max(abs(inside.low), abs(inside.high)) < 0.01
    assert it.samples.equivalence(0.1, relative=True) < 0.05
    assert "± 10 % of plain at depth 2" in words_of(judged(spec=spec), cell(judged(spec=spec), "plain", 32))


# --- factors ---


def optimisers(**changes):
    axes = (
        Axis(
            "optimizer", {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}, "adamw": {"optimizer": "adamw"}}
        ),
        Axis("condition", CONDITIONS),
    )
    primary = tuple(Primary("depth", level, "plain") for level in ("sgd", "adamw"))
    fields = {"scientific": axes, "factor": "optimizer", "reference": "adam", "primary": primary}
    return make_spec(**{**fields, **changes})


def test_levels_may_be_names_and_any_of_them_the_reference() -> None:
    spec = optimisers()
    found = judged({("plain", "sgd"): around(0.4), ("plain", "adamw"): around(0.05)}, spec)
    assert [cell(found, "plain", level).label for level in ("sgd", "adam", "adamw")] == [
        "degraded", "reference", "helps",
    ]  # fmt: skip
    worse = contrast(found, "depth", "plain", "sgd")
    assert (worse.against.level, cause_of(worse)) == ("adam", None)
    text = said(found) + found.answer
    assert "Plain trains worse for optimizer sgd than for optimizer adam" in text
    assert "Plain for optimizer adamw: training is better than for optimizer adam." in text
    assert "depth" not in text.lower()
    again = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert again["factor"] == "optimizer"
    assert {(c["condition"], c["level"]) for c in again["cells"]} == {(c.condition, c.level) for c in spec.cells}


def test_without_a_factor_two_conditions_are_compared() -> None:
    axes = (Axis("condition", CONDITIONS),)
    spec = make_spec(scientific=axes, primary=(Primary("shortcut", None, "residual", "plain"),))
    found = judged({("residual", ""): around(0.05)}, spec)
    assert contrast(found, "shortcut", "residual", "").label == "helps"
    assert found.answer == "Residual trains better than plain."
    assert "depth" not in said(found).lower()
    assert judged(spec=spec).answer == "Residual is equivalent to plain within ± 0.02 nats."
    json.dumps(found.as_json(), allow_nan=False)


def test_a_study_of_a_metric_says_so_in_its_answer_and_reads_it_where_it_stands() -> None:
    assert source_of_score("val_last_r2") == "result.json:val.last.r2"
    spec = make_spec(metric="val_last_loss", primary=(Primary("depth", 32, "plain"), Primary("shortcut", 32, *TWINS)))
    words = judged(spec=spec).answer
    assert "By validation loss" in words or "validation loss" in words
    assert quantity_of("depth", make_spec(metric="val_last_f1_weighted", better="higher")).name == (
        "validation F1 (weighted)"
    )


def test_a_direction_against_the_name_of_its_metric_is_refused() -> None:
    with pytest.raises(BadInput, match="'lower' contradicts study\\.metric = 'val_last_accuracy'; higher"):
        make_spec(metric="val_last_accuracy", better="lower")


def test_a_comparison_that_a_claim_of_others_brings_in_reach_is_not_called_undecidable() -> None:
    pairs = (Primary("depth", 8, "plain"), Primary("depth", 8, "residual"))
    few = make_spec(seeds=tuple(range(7)), seeds_of={"plain": tuple(range(4))}, primary=pairs)
    (line,) = out_of_reach(few)
    assert line.startswith("4 seeds can decide 1 of the 2 comparisons only after a claim of others: ")
    (line,) = out_of_reach(make_spec(seeds=tuple(range(4)), primary=pairs))
    assert line.startswith("4 seeds cannot decide any of the 2 comparisons: ")


def test_conditions_may_have_other_numbers_of_seeds() -> None:
    spec = make_spec(seeds=tuple(range(6)), seeds_of={"residual": tuple(range(100, 115))})
    found = judged({("plain", 32): around(0.5, 6), ("residual", 32): around(0.08, 15)}, spec)
    it = contrast(found, "shortcut", "residual", 32)
    assert (it.label, it.design, tuple(map(len, it.runs))) == ("helps", "unpaired", (15, 6))
    assert "15 and 6 runs" in said(found)
    assert found.complete
    assert contrast(found, "depth", "residual", 32).design == "paired"
    assert contrast(found, "depth", "plain", 32).design == "unpaired"
