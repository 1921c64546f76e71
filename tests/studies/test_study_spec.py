"""What a study asks: JSON round trip, the grid, the fingerprint, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
from support.made_studies import DEPTHS, make_spec

from netdepth.config import MAX_SEED, Component, from_json, to_json
from netdepth.errors import BadInput
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

TUNED = Nuisance("optimizer.lr", "tuned", values=(1e-2, 1e-3), seeds=(100, 101))
SPEC = make_spec(nuisance=(TUNED,), max_looks=None)


def test_json_round_trip_is_exact() -> None:
    again = from_json(StudySpec, json.loads(json.dumps(to_json(SPEC))))
    assert again == SPEC
    assert again.fingerprint() == SPEC.fingerprint()


def test_the_grid_is_every_condition_at_every_depth() -> None:
    assert [(c.condition, c.level) for c in SPEC.cells] == [(n, str(d)) for n in ("plain", "residual") for d in DEPTHS]
    assert (SPEC.levels, SPEC.conditions) == (tuple(map(str, DEPTHS)), ("plain", "residual"))
    cell = SPEC.cells[-1]
    assert cell.config.model == Component("mlp", {"width": 64, "depth": 32, "shortcut": "identity"})
    assert cell.levels == {"depth": "32", "condition": "residual"}


def test_depths_are_sorted_and_several_axes_make_one_condition() -> None:
    axes = (
        Axis("shortcut", {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity"}}),
        Axis.of_depths([32, 2, 8]),
        Axis("init", {"default": {}, "he": {"model.init": "he"}}),
    )
    spec = make_spec(scientific=axes, primary=(Primary("depth", 8, "plain, he"),))
    assert spec.levels == ("2", "8", "32")
    assert spec.conditions == ("plain, default", "plain, he", "residual, default", "residual, he")
    assert [cell.level for cell in spec.cells] == ["2", "8", "32"] * 4
    assert spec.condition_of({"init": "he", "shortcut": "plain", "depth": 8}) == "plain, he"


def test_a_level_may_replace_a_component() -> None:
    axes = (Axis.of_depths([2, 8]), Axis("optimizer", {"adam": {}, "sgd": {"optimizer": "sgd", "optimizer.lr": 0.1}}))
    spec = make_spec(scientific=axes, primary=())
    assert spec.cells[-1].config.optimizer == Component("sgd", {"lr": 0.1})


def test_only_adding_seeds_leaves_it_the_same_study() -> None:
    more = SPEC.extended(range(12))
    assert (more.looks, more.seeds) == (2, tuple(range(12)))
    assert more.fingerprint() == SPEC.fingerprint()
    assert len(SPEC.fingerprint()) == 10
    others = [
        make_spec(),
        dataclasses.replace(SPEC, smallest_effect=0.03),
        dataclasses.replace(SPEC, primary=SPEC.primary[1:]),
        dataclasses.replace(SPEC, base=dataclasses.replace(SPEC.base, dataset=Component("fashion-mnist"))),
        dataclasses.replace(SPEC, scientific=(SPEC.scientific[0], Axis("condition", {"plain": {}, "residual": {}}))),
    ]
    assert len({SPEC.fingerprint(), *(other.fingerprint() for other in others)}) == 1 + len(others)
    assert dataclasses.replace(SPEC, base=SPEC.base.with_seed(5)).fingerprint() == SPEC.fingerprint()


def test_seeds_are_added_as_often_as_was_declared() -> None:
    once, thrice = (dataclasses.replace(SPEC, max_looks=n) for n in (1, 3))
    assert {once.fingerprint(), thrice.fingerprint()} == {SPEC.fingerprint()}, "declaring it leaves it the same study"
    assert from_json(StudySpec, json.loads(json.dumps(thrice.as_json()))) == thrice
    assert "max_looks" not in SPEC.as_json()
    third = thrice.extended(range(12)).extended(range(14))
    assert (third.looks, third.max_looks) == (3, 3)
    with pytest.raises(BadInput, match=r"declared 3 analyses before its runs \(max_looks = 3\)"):
        third.extended(range(16))
    with pytest.raises(BadInput, match="declared one analysis before its runs"):
        once.extended(range(12))


@pytest.mark.parametrize(("seeds", "words"), [(range(9), "drops seed 9"), (range(10), "adds no seed")])
def test_an_extension_keeps_the_planned_seeds_and_adds_some(seeds, words) -> None:
    with pytest.raises(BadInput, match=words):
        SPEC.extended(seeds)


DEPTH_AXIS = Axis.of_depths([2, 8])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "study.name = ' ' is not acceptable"),
        ({"question": ""}, "study.question = '' is not acceptable"),
        ({"scientific": ()}, r"study.scientific = \[\] .* axes of different names"),
        ({"scientific": (DEPTH_AXIS, DEPTH_AXIS)}, "axes of different names"),
        ({"scientific": (DEPTH_AXIS, Axis("seed", {"a": {}}))}, "axis name = 'seed' .* other names than run"),
        ({"scientific": (DEPTH_AXIS, Axis("condition", {}))}, "one or more levels"),
        ({"scientific": (DEPTH_AXIS, Axis("condition", {"a": 3}))}, "level 'a' of axis 'condition' = 3"),
        ({"scientific": (Axis("depth", {"deep": {}}),)}, "level of axis 'depth' = 'deep'"),
        ({"scientific": (Axis("depth", {"02": {}}),)}, "level of axis 'depth' = '02'"),
        ({"scientific": (DEPTH_AXIS, Axis("condition", {"a": {"modle.x": 1}}))}, "did you mean 'model'"),
        ({"seeds": ()}, r"study.seeds = \[\] is out of range"),
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": (MAX_SEED + 1,)}, "out of range"),
        ({"smallest_effect": 0.0}, "smallest_effect = 0.0"),
        ({"smallest_effect": float("nan")}, "smallest_effect = nan"),
        ({"looks": 0}, "looks = 0"),
        ({"looks": 3, "max_looks": 2}, "study.max_looks = 2 is out of range; it takes 3 or more, or null"),
        ({"primary": (Primary("width", 8, "plain"),)}, "unknown study.primary: family 'width'"),
        ({"primary": (Primary("depth", 9, "plain"),)}, "depth '9'"),
        ({"primary": (Primary("depth", 8, "plian"),)}, "did you mean 'plain'"),
        ({"primary": (Primary("depth", 2, "plain"),)}, "depth 2 is the shallowest"),
        ({"primary": (Primary("depth", 8, "plain", "residual"),)}, "compared with the shallowest"),
        ({"primary": (Primary("shortcut", 8, "plain"),)}, "condition against None"),
        ({"primary": (Primary("shortcut", 8, "plain", "plain"),)}, "condition against 'plain'"),
        ({"primary": (Primary("condition", 8, "plain"),)}, "condition against None"),
        ({"primary": (Primary("condition", 8, "plain", "residual"), SPEC.primary[-1])}, "mixes the family 'condition'"),
        ({"primary": (Primary("depth", 8, "plain"),) * 2}, "names a comparison twice"),
        ({"nuisance": (Nuisance("optimizer.lr", "tuned", (0.1,)),)}, "tuned takes values and seeds"),
        ({"nuisance": (Nuisance("optimizer.lr", "fixed", (0.1,)),)}, "fixed neither"),
        ({"nuisance": (Nuisance("optimizer.lr", "tuned", (0.1,), (3,)),)}, "tuned on seed 3 of the study"),
    ],
)
def test_what_is_no_study_is_refused_in_one_line(changes, words) -> None:
    with pytest.raises(BadInput, match=words) as error:
        make_spec(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 5}, "study.seeds = 5 is not acceptable; it takes list of int"),
        ({"seeds": ["a"]}, r"study.seeds\[0\] = 'a'"),
        ({"primary": [{"family": "depth"}]}, r"study.primary\[0\] lacks condition, level"),
    ],
)
def test_bad_json_names_the_value(change, words) -> None:
    with pytest.raises(BadInput, match=words):
        from_json(StudySpec, {**to_json(SPEC), **change}, "study")
