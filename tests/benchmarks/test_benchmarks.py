"""The tables of benchmarks/conv.py and study.py: ratios worked out beforehand, a refusal to compare different work.

That the published tables are made from their files is held by ``test_every_table_is_what_its_runs_say``.
"""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest

from netdepth.models import build, describe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("conv", "conv_report", "epoch", "report", "study", "study_report", "baselines")


@contextlib.contextmanager
def driver(name):
    """A module of the benchmarks, whose imports leave nothing behind."""
    path, before = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        module = importlib.import_module(name)
        assert Path(module.__file__).parent == BENCHMARKS
        yield module
    finally:
        sys.path[:] = path
        for left in [n for n in sys.modules if n.partition(".")[0] in MODULES and n not in before]:
            del sys.modules[left]


@pytest.fixture
def conv():
    with driver("conv") as module:
        yield module


@pytest.fixture
def study():
    with driver("study") as module:
        yield module


@pytest.mark.parametrize(("name", "near"), [("conv", 0.05), ("study", 0.01)])
def test_baselines_that_train_something_else_are_refused(name, near):
    with driver(name) as module:
        module.refuse_different_work({"a": 2.0, "b": 2.0 + 0.6 * near, "c": 2.0 + near})
        for wrong in (2.0 + 3 * near, float("nan")):
            with pytest.raises(SystemExit, match=r"^c trains something else"):
                module.refuse_different_work({"a": 2.0, "b": 2.0 + 0.6 * near, "c": wrong})


@pytest.mark.parametrize(
    ("name", "good", "wrong", "said"),
    [
        ("conv", ["--quick", "--only", "netdepth,limit"], ["--only", "eagr"], "eagr is unknown"),
        ("conv", [], ["--depth", "21"], "6n + 2"),
        ("study", ["--quick", "--only", "netdepth,vmap"], ["--only", "vmpa"], "vmpa is unknown"),
        ("study", [], ["--depths", "1"], "take 2 or more"),
    ],
)
def test_options_are_read_and_refused(name, good, wrong, said, capsys):
    with driver(name) as module:
        if good:
            given, names = module.parse(good)
            assert (given.dataset, given.rounds, set(names)) == ("mnist5k", 1, set(good[-1].split(",")))
        with pytest.raises(SystemExit):
            module.parse(wrong)
        assert said in capsys.readouterr().err


# --- conv.py ---


def epoch_turns(*seconds, loss=2.0):
    return [{"seconds": s, "images": 1000, "train_loss": loss} for s in seconds]


CONV = {
    "limit": {"startup": 1.0, "turns": [{"seconds": s, "images": 1000} for s in (0.3, 0.25, 0.5)]},
    "notebook": {"startup": 2.0, "turns": epoch_turns(2.0, 2.0, 8.0)},
    "netdepth-bf16": {"startup": 3.0, "turns": epoch_turns(1.0, 0.5, 4.0, loss=2.1)},
}


def test_ratios_are_medians_over_rounds_and_the_limit_is_the_best_rate(conv):
    rows = {row.name: row for row in conv.conv_report.summarise(CONV)}
    assert rows["netdepth-bf16"].times == 2.0  # of 2/1, 2/0.5 and 8/4
    assert rows["netdepth-bf16"].median == 1000.0
    assert rows["netdepth-bf16"].share == 0.25  # of 1000 / 0.25
    assert (rows["notebook"].low, rows["notebook"].high) == (125.0, 500.0)


def test_operations_are_those_of_the_network(conv):
    from baselines.conv_limit import layers, operations

    found = [layer for layer in describe(build("resnet", (3, 32, 32), 10, depth=20)).layers if layer.kind == "Conv2d"]
    assert [layer[1] for layer in layers(3, 32, 32, 20)] == [layer.output_shape[0] for layer in found]
    each = [layer.multiply_adds for layer in found]
    # Forward, weight gradient, input gradient; the images have none. A multiply-add is two operations.
    assert operations(3, 32, 32, 20) == 2 * (3 * sum(each) - each[0])


# --- study.py ---


def study_turns(*seconds, **more):
    return [{"seconds": s, "depths": {"2": s / 4, "8": 3 * s / 4}, "train_loss": 0.3, **more} for s in seconds]


STUDY = {
    "eager-foreach": {"startup": 2.0, "seeds_trained": 4, "turns": study_turns(12.0, 12.0, 36.0)},
    "eager-fused": {"startup": 2.0, "seeds_trained": 4, "turns": study_turns(10.0, 8.0, 30.0)},
    "netdepth": {"startup": 0.5, "seeds_trained": 4, "turns": study_turns(2.0, 2.0, 5.0, whole=4.0)},
    "notebook": {"startup": 2.0, "seeds_trained": 1, "turns": study_turns(20.0, 20.0, 20.0)},
}


def test_ratios_are_medians_over_rounds_against_the_faster_eager_loop(study):
    rows = {row.name: row for row in study.study_report.summarise(STUDY, 4)}
    assert rows["eager-fused"].faster == 1.0
    assert rows["netdepth"].faster == 5.0  # of 10/2, 8/2 and 30/5
    assert rows["netdepth"].faster_at == {"2": 5.0, "8": 5.0}
    assert rows["netdepth-command"].median == 4.0
    assert rows["netdepth-command"].startup == 2.0
    assert rows["notebook"].median == 80.0  # four seeds, of which one was trained
    assert rows["notebook"].faster_at["8"] == pytest.approx(10 / 80)
    rates = [{"plain": 900.0, "GELU": 300.0}, {"plain": 1000.0, "GELU": 250.0}, {"plain": 1000.0, "GELU": 200.0}]
    turns = [{"steps_per_second": rate, "fast_path": {"plain": True, "GELU": False}} for rate in rates]
    assert study.study_report.remedies({"turns": turns}) == [
        ["plain", "yes", "1,000", "1.00"],
        ["GELU", "no", "250", "0.25"],
    ]
