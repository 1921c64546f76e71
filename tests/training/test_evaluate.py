"""Metrics against scikit-learn and against their definitions."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss
from support.real_runs import CONFIG, make
from support.real_stacks import quickly

from netdepth.conformance import check_component
from netdepth.data import Split
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.report.run_text import print_run, render
from netdepth.runs.compare import compare
from netdepth.runs.table import QUANTITIES
from netdepth.trackers.base import tracker_record
from netdepth.training.evaluate import METRICS, class_report, logits_of, metrics, own_metrics, scores_at_evaluation
from netdepth.training.stack import Stack

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(500, 6, generator=GENERATOR) * 3
LOGITS[:, 5] = -50.0  # a class that is never predicted
LABELS = torch.randint(0, 6, (500,), generator=GENERATOR)


def test_metrics_equal_scikit_learns():
    ours = metrics(LOGITS, LABELS)
    truth, predicted = LABELS.numpy(), LOGITS.argmax(1).numpy()
    weighted = classification_report(truth, predicted, output_dict=True, zero_division=0)["weighted avg"]
    assert ours["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    for name, column in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert ours[f"{name}_weighted"] == pytest.approx(weighted[column], abs=1e-12)
    mild = LOGITS[:, :5]
    labels = LABELS.clamp_max(4)
    shares = mild.double().softmax(1).numpy()
    assert metrics(mild, labels)["loss"] == pytest.approx(log_loss(labels.numpy(), shares), abs=1e-12)


def test_class_report_and_confusion():
    per_class, confusion = class_report(LOGITS, LABELS, list("abcdef"))
    matrix = np.array(confusion)
    assert (matrix == confusion_matrix(LABELS.numpy(), LOGITS.argmax(1).numpy())).all()
    assert matrix.sum() == 500
    assert [row["class"] for row in per_class] == list("abcdef")
    assert per_class[5]["precision"] == 0.0
    expected = classification_report(LABELS.numpy(), LOGITS.argmax(1).numpy(), output_dict=True, zero_division=0)
    for i, row in enumerate(per_class):
        for name, column in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert row[name] == pytest.approx(expected[str(i)][column], abs=1e-12)
        assert row["support"] == matrix[i].sum()
        assert row["recall"] == pytest.approx(matrix[i, i] / matrix[i].sum(), abs=1e-12)


def test_evaluation_is_in_eval_mode_and_puts_the_mode_back():
    model = build("mlp", (1, 4, 4), 6, hidden=[32], dropout=0.9)
    images = torch.randint(0, 256, (2300, 1, 4, 4), dtype=torch.uint8, generator=GENERATOR)
    split = Split(images, torch.randint(0, 6, (2300,), generator=GENERATOR))
    model.train()
    stack = Stack([model])
    (first,), (second,) = logits_of(stack, [0], split), logits_of(stack, [0], split)
    assert model.training
    assert torch.equal(first, second)
    (scores,) = scores_at_evaluation(stack, [0], split)
    full = metrics(first, split.labels)
    assert scores["loss"] == pytest.approx(full["loss"], abs=1e-6)
    assert scores["accuracy"] == pytest.approx(full["accuracy"], abs=1e-12)


@pytest.mark.parametrize(
    "args",
    [
        {"hidden": [7, 5]},
        {"hidden": []},
        {"width": 6, "depth": 7, "dropout": 0.5},
        {"width": 6, "depth": 7, "shortcut": "identity", "branch_scale": "blocks^-1/2"},
        {"width": 6, "depth": 8, "shortcut": "identity", "block_layers": 2},
        {"width": 6, "depth": 8, "shortcut": "identity", "block_layers": 3},
        {"width": 6, "depth": 5, "norm": "batch"},
    ],
    ids=str,
)
def test_many_replicas_looked_at_together_equal_each_alone(args):
    models = [build("mlp", (1, 4, 4), 6, seed=seed, **args).double() for seed in range(4)]
    stack = Stack(models)
    images = torch.randint(0, 256, (1203, 1, 4, 4), dtype=torch.uint8, generator=GENERATOR)
    split = Split(images, torch.randint(0, 6, (1203,), generator=GENERATOR))
    for replicas in ([0, 1, 2, 3], [3, 1]):
        for index, logits in zip(replicas, logits_of(stack, replicas, split), strict=True):
            (alone,) = logits_of(stack, [index], split)
            assert torch.allclose(logits, alone, atol=1e-12, rtol=0)


def test_a_metric_of_ones_own_is_in_every_record_result_and_table(tmp_path, capsys):
    def top_2(logits, labels, k=2):
        """Whether the label is among the k largest."""
        return (logits.topk(k).indices == labels[:, None]).any(1).double().mean()

    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, budget="1ep"))
    with quickly():
        without = make(tmp_path / "without", config)
        METRICS.register("top-2")(top_2)
        made = make(tmp_path, config)
        assert (
            make(tmp_path / "without", config).notes[0]
            == "made without the metric top-2; a run in another --runs folder has it"
        )
        assert [f.promise for f in check_component("metric", "top-2") if not f.kept] == []
        METRICS.register("bad")(lambda logits, labels: logits)
        with pytest.raises(BadInput, match="metric 'bad' returned Tensor; it must return one number"):
            own_metrics(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
        METRICS.register("loss")(top_2)
        with pytest.raises(BadInput, match="a metric named 'loss' would hide netdepth's own"):
            make(tmp_path / "hidden", config)
    (record,), result = made.run.read_metrics(), made.result
    assert record["val_top_2"] == result["val"]["last"]["top_2"] > result["val"]["last"]["accuracy"]
    assert tracker_record(record)["val/top_2"] == record["val_top_2"]
    print_run(made.run)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    head, *lines = [line for line in shown if "F1" in line or line.startswith("test  ")]
    assert head.split()[-1] == "top_2"
    assert lines[-1].split()[-1] == f"{result['test']['last']['top_2']:.4f}"
    both = compare([made.run, without.run])
    (quantity,) = both.quantities[len(QUANTITIES) :]
    rows = [row for group in both.groups for row in group.rows]
    assert [quantity.of(row) for row in rows] == [result["test"]["last"]["top_2"], None]
    assert quantity.source(rows[0]).endswith("result.json:test.last.top_2")
    assert "test top\\_2" in render(both, "markdown")
