"""The table of benchmarks/conv.py: ratios by hand, operations by count, and a refusal to compare different work."""

import json
import sys
from pathlib import Path

import pytest

from netdepth.models import build, describe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("conv", "conv_report", "epoch", "report", "contestants")


@pytest.fixture(scope="module")
def conv():
    kept_path, kept = list(sys.path), dict(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import conv

        assert Path(conv.__file__).parent == BENCHMARKS
        yield conv
    finally:
        sys.path[:] = kept_path
        for name in [n for n in sys.modules if n.partition(".")[0] in MODULES and n not in kept]:
            del sys.modules[name]


def turns(*seconds, loss=2.0):
    return [{"seconds": s, "images": 1000, "train_loss": loss} for s in seconds]


RESULTS = {
    "date": "2026-01-01",
    "machine": {
        "cpu": "a CPU",
        "cores": 2,
        "capability": "AVX2",
        "python": "3.11",
        "versions": dict.fromkeys(("netdepth", "torch", "jax"), "1.0"),
    },
    "load_before": 0.1,
    "settings": {"dataset": "cifar10", "depth": 20, "images": 1000, "batch_size": 128, "rounds": 3, "threads": 2},
    "contestants": {
        "limit": {"startup": 1.0, "turns": [{"seconds": s, "images": 1000} for s in (0.3, 0.25, 0.5)]},
        "notebook": {"startup": 2.0, "turns": turns(2.0, 2.0, 8.0)},
        "netdepth-bf16": {"startup": 3.0, "turns": turns(1.0, 0.5, 4.0, loss=2.1)},
    },
}


def test_ratios_are_medians_over_rounds_and_the_limit_is_the_best_rate(conv):
    rows = {row.name: row for row in conv.conv_report.summarise(RESULTS["contestants"])}
    assert rows["netdepth-bf16"].times == 2.0  # of 2/1, 2/0.5 and 8/4
    assert rows["netdepth-bf16"].median == 1000.0
    assert rows["netdepth-bf16"].share == 0.25  # of 1000 / 0.25
    assert (rows["notebook"].low, rows["notebook"].high) == (125.0, 500.0)


def test_the_published_table_is_made_from_the_file(conv, tmp_path):
    path = tmp_path / "conv.json"
    with pytest.raises(SystemExit, match="missing"):
        conv.conv_report.block(path)
    path.write_text(json.dumps(RESULTS))
    table = conv.conv_report.block(path)
    assert "| **netdepth**, bf16 | 1,000 | 250 | 2,000 | 2.00 | 25% | 3.0 |" in table
    assert "over all ways and rounds: 2.000 to 2.100." in table
    assert set(conv.MODULES) == set(conv.conv_report.WORDS)


def test_operations_are_those_of_the_network(conv):
    from contestants.conv_limit import layers, operations

    found = [layer for layer in describe(build("resnet", (3, 32, 32), 10, depth=20)).layers if layer.kind == "Conv2d"]
    assert [layer[1] for layer in layers(3, 32, 32, 20)] == [layer.output_shape[0] for layer in found]
    each = [layer.multiply_adds for layer in found]
    # Forward, weight gradient, input gradient; the images have none. A multiply-add is two operations.
    assert operations(3, 32, 32, 20) == 2 * (3 * sum(each) - each[0])


def test_contestants_that_train_something_else_are_refused(conv):
    conv.refuse_different_work({"a": 2.0, "b": 2.03, "c": 2.05})
    for wrong in (2.2, float("nan")):
        with pytest.raises(SystemExit, match=r"^c trains something else"):
            conv.refuse_different_work({"a": 2.0, "b": 2.03, "c": wrong})


def test_options_are_read_and_refused(conv, capsys):
    given, names = conv.parse(["--quick", "--only", "netdepth,limit"])
    assert (given.dataset, given.rounds, names) == ("mnist5k", 1, ["limit", "netdepth"])
    for wrong, said in ((["--only", "eagr"], "eagr is unknown"), (["--depth", "21"], "6n + 2")):
        with pytest.raises(SystemExit):
            conv.parse(wrong)
        assert said in capsys.readouterr().err
