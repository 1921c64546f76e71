"""A study whose networks learn values: the loss of the best constant answer stands where ln C does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import netdepth as nd
from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.errors import BadInput
from netdepth.report.check import check_report
from netdepth.studies.verdict import Verdict
from netdepth.studies.wording import cell_words
from netdepth.studyspec import Axis, Primary, StudySpec

DRAW = np.random.default_rng(0)
BRIGHT = DRAW.random((200, 1))
X = (DRAW.integers(0, 256, (200, 5, 5)) * BRIGHT[:, :, None]).astype(np.uint8)
Y = 3 * BRIGHT[:, 0] - 1


def spec_of(**changes: object) -> StudySpec:
    depths = Axis("depth", {"2": {"model.hidden": [6]}, "3": {"model.hidden": [6, 6]}, "4": {"optimizer.lr": 30.0}})
    base = RunConfig(
        dataset=nd.dataset(X, Y),
        model=Component("mlp", {"hidden": [6, 6, 6]}),
        objective=Component("mse"),
        train=TrainConfig(budget="5ep", batch_size=16),
    )
    given = {"seeds": (0, 1), "primary": (Primary("depth", 4, ""),), "smallest_effect": 0.02, **changes}
    return StudySpec(name="values", question="Does depth help?", base=base, scientific=(depths,), **given)  # type: ignore[arg-type]


def words_of_cells(verdict: Verdict) -> list[str]:
    return [cell_words(item, verdict.spec) for item in verdict.cells]


@pytest.mark.slow
def test_the_best_constant_answer_is_the_cap_and_the_page_speaks_of_no_nats(tmp_path: Path) -> None:
    runtime = Runtime(runs_root=tmp_path, trackers=(), probes=False)
    study = nd.study(spec_of(), workers=0, runtime=runtime, progress=False)
    table, verdict = study.table(), study.verdict()
    constant = table["constant_loss"].unique()
    assert len(constant) == 1
    assert constant[0] == pytest.approx(Y.var(), rel=0.1)
    assert table["val_last_r2"].notna().all()
    assert table["classes"].isna().all()
    assert verdict.scale is not None
    assert (verdict.scale.chance, verdict.scale.entropy) == (constant[0], constant[0])
    deep = next(item.cell for item in verdict.cells if item.cell.level == "4")
    assert deep.fate == "exploded"
    assert all(run.capped == constant[0] for run in deep.runs)
    said = " ".join([*(sentence.text for sentence in verdict.sentences), *words_of_cells(verdict)])
    assert "twice the loss of the best constant answer" in said
    page = study.report().read_text()
    assert check_report(study.dir).faults == ()
    words = (study.path / "report.md").read_text()
    assert "values are learned; the loss is mse" in words
    for text in (said, words, page):
        assert " nats" not in text
        assert "ln 0" not in text
    assert "the best constant answer" in page
    assert "Training error" not in page


def test_conditions_of_values_are_compared_by_a_metric(tmp_path: Path) -> None:
    conditions = Axis("condition", {"a": {"optimizer.lr": 1e-3}, "b": {"optimizer.lr": 1e-2}})
    spec = spec_of()
    asked = StudySpec(
        name="pairs",
        question="Which rate?",
        base=spec.base,
        scientific=(Axis("depth", {"4": {}}), conditions),
        seeds=(0, 1),
        primary=(Primary("condition", 4, "a", "b"),),
        smallest_effect=0.02,
    )
    with pytest.raises(BadInput, match="compares conditions by validation error, which values do not have"):
        nd.study(asked, workers=0, runtime=Runtime(runs_root=tmp_path, trackers=()), progress=False)
