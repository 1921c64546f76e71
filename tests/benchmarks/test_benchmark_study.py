"""The tables of benchmarks/study.py: ratios by hand, and a refusal to compare different work."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def study():
    before, kept = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import study

        assert Path(study.__file__).parent == BENCHMARKS
        yield study
    finally:
        sys.path[:] = kept
        for name in ("study", "epoch", "report", "study_report"):
            if name not in before:
                sys.modules.pop(name, None)


def turns(*seconds, **more):
    return [{"seconds": s, "depths": {"2": s / 4, "8": 3 * s / 4}, "train_loss": 0.3, **more} for s in seconds]


@pytest.fixture
def results():
    contestants = {
        "eager-foreach": {"startup": 2.0, "seeds_trained": 4, "turns": turns(12.0, 12.0, 36.0)},
        "eager-fused": {"startup": 2.0, "seeds_trained": 4, "turns": turns(10.0, 8.0, 30.0)},
        "netdepth": {
            "startup": 0.5,
            "seeds_trained": 4,
            "turns": turns(2.0, 2.0, 5.0, whole=4.0, stacks={"2": [4], "8": [2, 2]}, megabytes=3.2),
        },
        "notebook": {"startup": 2.0, "seeds_trained": 1, "turns": turns(20.0, 20.0, 20.0)},
    }
    machine = {"cpu": "a CPU", "cores": 2, "capability": "AVX2", "python": "3.11"}
    machine["versions"] = dict.fromkeys(("netdepth", "torch", "jax", "numpy"), "1.0")
    names = ("dataset", "depths", "width", "batch_size", "epochs", "rounds", "threads", "remedies_depth")
    settings = dict(zip(names, ("mnist", [2, 8], 64, 128, 1, 3, 2, 8), strict=True))
    rates = [{"plain": 900.0, "GELU": 300.0}, {"plain": 1000.0, "GELU": 250.0}, {"plain": 1000.0, "GELU": 200.0}]
    fast = {"plain": True, "GELU": False}
    return {
        "date": "2026-01-01",
        "machine": machine,
        "load_before": 0.1,
        "settings": settings,
        "studies": {"4": contestants},
        "remedies": {"turns": [{"steps_per_second": rate, "fast_path": fast} for rate in rates]},
    }


def test_ratios_are_medians_over_rounds_against_the_faster_eager_loop(study, results):
    rows = {row.name: row for row in study.study_report.summarise(results["studies"]["4"], 4)}
    assert rows["eager-fused"].faster == 1.0
    assert rows["netdepth"].faster == 5.0  # of 10/2, 8/2 and 30/5
    assert rows["netdepth"].faster_at == {"2": 5.0, "8": 5.0}
    assert rows["netdepth-command"].median == 4.0
    assert rows["netdepth-command"].startup == 2.0
    assert rows["notebook"].median == 80.0  # four seeds, of which one was trained
    assert rows["notebook"].faster_at["8"] == pytest.approx(10 / 80)
    assert study.study_report.remedies(results["remedies"]) == [
        ["plain", "yes", "1,000", "1.00"],
        ["GELU", "no", "250", "0.25"],
    ]


def test_a_published_block_is_made_from_the_file(study, results, tmp_path):
    path = tmp_path / "study.json"
    with pytest.raises(SystemExit, match="missing"):
        study.study_report.block(path, "all")
    path.write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="no study of 5 seeds; it has 4"):
        study.study_report.block(path, "5")
    assert "| **`netdepth study`**, without start-up | 2.0 | 5.0 |" in study.study_report.block(path, "4")
    whole = study.study_report.block(path, "all")
    assert "Compared with PyTorch, eager, one run after another, `Adam(fused=True)`." in whole
    assert "depth 2: 4; depth 8: 2 + 2. It wrote 3 MB." in whole
    assert "| GELU | no | 250 | 0.25 |" in whole


def test_contestants_that_train_something_else_are_refused(study):
    study.refuse_different_work({"a": 0.3, "b": 0.305, "c": 0.31})
    with pytest.raises(SystemExit, match=r"^c trains something else"):
        study.refuse_different_work({"a": 0.3, "b": 0.305, "c": 0.32})
    with pytest.raises(SystemExit, match=r"^c trains something else"):
        study.refuse_different_work({"a": 0.3, "b": 0.305, "c": float("nan")})


def test_options_are_read_and_refused(study, capsys):
    given, names = study.parse(["--quick", "--only", "netdepth,vmap"])
    assert (given.dataset, given.rounds, names) == ("mnist5k", 1, ["vmap", "netdepth"])
    assert set(study.MODULES) - {"remedies"} <= set(study.study_report.WORDS)
    for wrong, said in ((["--only", "vmpa"], "vmpa is unknown"), (["--depths", "1"], "take 2 or more")):
        with pytest.raises(SystemExit):
            study.parse(wrong)
        assert said in capsys.readouterr().err
